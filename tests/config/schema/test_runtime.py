"""Constraints of runtime.*, *.batch, save.* and resume."""

import pytest

from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.stage_table import STAGES
from tests.support.configuration import composed

SHARDED = ("zero1", "zero2", "zero3", "zero3_offload")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("save.keep=0", r"save\.keep=0 must be at least 1"),
        ("save.every_steps=0", r"save\.every_steps=0 must be positive or null"),
        ("save.every_minutes=-1", r"save\.every_minutes=-1\.0 must be positive or null"),
        ("data.date=yesterday", r"^data\.date=yesterday must be a day such as 2026-01-31"),
        ("data.date=2026-02-30", r"^data\.date=2026-02-30 must be a day such as 2026-01-31"),
        ("sft.batch.size=0", r"^sft\.batch\.size=0 must be positive"),
        ("sft.batch.microbatch=0", r"^sft\.batch\.microbatch=0 must be positive or null"),
        ("rm.batch.max_tokens=-5", r"^rm\.batch\.max_tokens=-5 must be positive or null"),
        ("ppo.batch.max_tokens=0", r"^ppo\.batch\.max_tokens=0 must be positive or null"),
        ("ppo.batch.minibatch=0", r"^ppo\.batch\.minibatch=0 must be positive"),
        (
            "rm.batch.microbatch=null",
            r"^rm\.batch\.microbatch=null and rm\.batch\.max_tokens=null: one",
        ),
        (
            "ppo.batch.microbatch=null",
            r"^ppo\.batch\.microbatch=null and ppo\.batch\.max_tokens=null",
        ),
        ("data.select_fraction=0", r"^data\.select_fraction=0\.0 must lie in \(0, 1\)"),
        (
            "data.eval_fraction=0.6 data.select_fraction=0.4",
            r"^data\.select_fraction=0\.4 and data\.eval_fraction=0\.6 leave .* less than 1",
        ),
        ("save.every_step=1", r"did you mean save\.every_steps"),
        ("resume=alwys", "resume=alwys is not one of auto, last_valid, never"),
        ("resume=null", "resume may not be null"),
        ("runtime.num_processes=0", r"runtime\.num_processes=0 must be positive or null"),
        ("runtime.num_threads=-2", r"runtime\.num_threads=-2 must be positive or null"),
        ("runtime.timeout=0", r"runtime\.timeout=0\.0 must be positive \(seconds\)"),
        ("runtime.gather=somtimes", r"runtime\.gather=somtimes is not one of auto, always, never"),
        ("runtime.dtype=float16", r"runtime\.dtype=float16 is not one of"),
        ("+runtime.deepspeed.zero_optimization.stage=7", "stage=7 is none of 1, 2, 3: choose"),
        (
            "runtime.compile=true runtime.reference_implementation=true",
            "compile=true is for plain torch",
        ),
        ("runtime.compile=true runtime=zero2", "compile=true is for plain torch"),
        ("runtime.offload=true runtime=zero3", "moves complete models; under ZeRO-3 choose"),
        ("runtime=zero4", "did you mean runtime=zero3"),
        ("+runtime.deepspeed.bf16.enabled=true", r"deepspeed\.bf16 is taken from runtime\.dtype"),
        ("runtime.deepspeed.fp16.enabled=true", r"deepspeed\.fp16 is taken from runtime\.dtype"),
        ("+runtime.deepspeed.train_batch_size=8", "is taken from <stage>.batch: leave it out"),
        ("+runtime.deepspeed.optimizer.type=Adam", "is taken from <stage>.optim: leave it out"),
        ("runtime.deepspeed.zero_optimization.stag=2", r"\+runtime\.deepspeed\S+stag=\.\.\. adds"),
    ],
)
def test_invalid_values_are_refused_in_one_line(word, expected):
    with pytest.raises(ConfigError, match=expected) as error:
        composed(*word.split())
    assert "\n" not in str(error.value)


def test_null_switches_an_option_off():
    words = ("save.every_steps=null", "save.every_minutes=null", "runtime.num_processes=null")
    assert composed(*words).save.every_minutes is None
    by_tokens = composed("sft.batch.microbatch=null", "sft.batch.max_tokens=4096").sft.batch
    assert (by_tokens.microbatch, by_tokens.max_tokens) == (None, 4096)
    assert composed("runtime=zero2", "runtime.deepspeed=null").runtime.deepspeed is None


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_presets_set_their_zero_stage_and_may_be_changed(name):
    given = composed(f"runtime={name}").runtime.deepspeed
    assert given["zero_optimization"]["stage"] == int(name[4])
    more = ("runtime.deepspeed.zero_optimization.reduce_bucket_size=7", "+runtime.deepspeed.new=1")
    changed = composed(f"runtime={name}", *more).runtime.deepspeed
    assert changed["zero_optimization"] == given["zero_optimization"] | {"reduce_bucket_size": 7}
    assert changed["new"] == 1


def test_options_of_the_machine_and_of_saving_are_in_no_fingerprint():
    """An interrupted stage resumes on another machine and with other options of saving."""
    moved = composed(
        "runtime=zero3", "runtime.num_processes=4", "runtime.num_threads=2", "runtime.timeout=9",
        "runtime.gather=never", "runtime.cuda_graphs=auto", "save.keep=5", "save.every_steps=3",
        "resume=last_valid",
    )  # fmt: skip
    for spec in STAGES.values():
        for key in spec.config(moved):
            computed = key in (
                "runtime.dtype",
                "runtime.reference_implementation",
                "runtime.compile",
            )
            assert computed or not key.startswith(("runtime", "save", "resume"))

"""Values of another shape than the schema's: taken where they are meant so, else told what to write."""

import pytest

from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.shape import conform


def test_a_whole_number_may_be_written_with_an_exponent():
    found = conform({"seed": 1e6, "ppo": {"total_episodes": 2.0, "gamma": 1.0}}, Config)
    assert found == {"seed": 1_000_000, "ppo": {"total_episodes": 2, "gamma": 1.0}}
    assert type(found["seed"]) is int
    assert type(found["ppo"]["gamma"]) is float


def test_what_the_schema_does_not_know_is_left_to_it():
    given = {"nosuch": 1e6, "sft": {"optim": {"lr": "${model.lr.sft}"}, "epoch": [1]}}
    assert conform(given, Config) == given


def test_deepspeeds_dictionary_is_deepspeeds():
    given = {"runtime": {"deepspeed": {"zero_optimization": {"sub_group_size": 1e9}}}}
    assert conform(given, Config) == given
    assert conform({"runtime": {"deepspeed": None}}, Config) == {"runtime": {"deepspeed": None}}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sft": 1}, "sft is a section, not a value: did you mean sft.epochs=1?"),
        ({"sft": {"schedule": "linear"}}, "did you mean sft.schedule.kind=linear? (it has kind,"),
        ({"sft": None}, "sft is a section, not a value: did you mean sft.epochs=...?"),
        ({"model": {"lr": 1e-4}}, "did you mean model.lr.sft=0.0001?"),
        ({"sft": {"optim": {"betas": 0.9}}}, "sft.optim.betas=0.9 is no list: write "),
        ({"tracking": {"trackers": "wandb"}}, "write tracking.trackers=[wandb]"),
        ({"data": {"prompts": "a.txt"}}, "write 'data.prompts=[{path: a.txt}]'"),
        (
            {"data": {"prompts": ["a.txt", "b.txt"]}},
            "'data.prompts=[{path: a.txt}, {path: b.txt}]'",
        ),
        ({"data": {"prompts": {"path": "a"}}}, "write 'data.prompts=[{path: a}]'"),
        ({"data": {"prompts": None}}, "write 'data.prompts=[]'"),
        ({"data": {"prompts": [{"path": None}]}}, "data.prompts[0].path may not be null"),
        ({"runtime": {"deepspeed": "foo"}}, "runtime.deepspeed=foo is no dictionary"),
        ({"name": ["a", "b"]}, "name=[a, b] is not a text"),
        ({"resume": {"a": True}}, "resume={a: true} is not one of auto, last_valid, never"),
        ({"rm": {"margin": float("nan")}}, "rm.margin=nan is not a finite number"),
        ({"ppo": {"kl": {"coef": float("inf")}}}, "ppo.kl.coef=inf is not a finite number"),
        ({"seed": 10**25}, "seed=10000000000000000000000000 is too large"),
        ({"save": {"keep": None}}, "save.keep may not be null"),
    ],
)
def test_what_belongs_there_is_said(given, told):
    with pytest.raises(ConfigError) as error:
        conform(given, Config)
    assert told in str(error.value)
    assert str(error.value).count("\n") == 0

"""Plain, replicated, ZeRO-1, 2 and 3: the same command, the same numbers, the same files.

Every stage starts from the same parents, with the same seed and global batch.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_cli.artifacts.results import read_results
from tests.support.command_line import rlhf
from tests.support.distributed.processes import run_processes
from tests.support.stage_runs import SAME_EVERYWHERE, SMALL, metrics

pytestmark = [pytest.mark.dist, pytest.mark.xdist_group("plain")]

BUDGET = (  # of tokens; the run it is compared with has none
    "sft.batch.microbatch=null", "sft.batch.max_tokens=120",
    "rm.batch.microbatch=null", "rm.batch.max_tokens=240",
    "ppo.batch.microbatch=null", "ppo.batch.max_tokens=80",
)  # fmt: skip
SHARDINGS = {
    "one-reference": (1, "runtime.reference_implementation=true"),
    "one-zero2": (1, "runtime=zero2"),
    "two-ddp": (2, "runtime=ddp"),
    "two-budget": (2, "runtime=zero2", *BUDGET),
    "two-zero1": (2, "runtime=zero1"),
    "two-zero2": (2, "runtime=zero2"),
    "two-offload": (2, "runtime=zero3_offload"),
    "two-zero3": (2, "runtime=zero3"),
}
TOLERANCES = {  # metric -> tolerance; PPO's first iterations sample the very same tokens
    "sft": {"sft/loss": 1e-5, "sft/grad_norm": 1e-4, "sft/tokens": 0, "sft/eval_loss": 1e-4},
    "rm": {"rm/loss": 1e-5, "rm/grad_norm": 1e-4, "rm/pairs": 0, "rm/accuracy": 1e-6},
    "ppo": {
        "objective/scores": 1e-4,
        "objective/kl": 1e-4,
        "objective/response_length": 0,
        "loss/policy_avg": 1e-4,
        "loss/value_avg": 1e-4,
        "loss/ptx": 1e-4,
        "policy/grad_norm": 1e-3,
        "val/grad_norm": 1e-3,
    },
    "rloo": {
        "objective/scores": 1e-4,
        "objective/kl": 1e-4,
        "objective/response_length": 0,
        "policy/grad_norm": 1e-3,
    },
    "dpo": {"dpo/loss": 1e-5, "dpo/grad_norm": 1e-3, "rewards/margins": 1e-4},
    "raft": {"raft/loss": 1e-4, "raft/grad_norm": 1e-3, "raft/scores": 1e-4, "raft/kept": 0},
}

NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")

# the others are also compared step by step in tests of engines and of scoring
FAST = {"two-ddp"}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[] if x in FAST else [pytest.mark.slow]) for x in SHARDINGS]
)
def test_every_sharding_gives_the_same_metrics_answers_and_files(plain, tmp_path, name):
    processes, *words = SHARDINGS[name]
    words = [*SAME_EVERYWHERE, *words, "runtime.num_threads=1"]
    run_processes(
        processes,
        "tests.support.distributed.stages:every_stage",
        str(plain),
        str(tmp_path),
        words,
        timeout=200,
    )
    assert_same_run(plain, tmp_path)


def test_the_command_line_starts_several_processes_under_zero3(plain, tmp_path):
    """Sharded weights in generation are the case most likely to hang."""
    words = ("runtime=zero3", "runtime.gather=never", "runtime.num_processes=2")
    parents = [f"parents.{stage}={plain / stage / 'model'}" for stage in ("sft", "rm")]
    words = (*words, "runtime.num_threads=1", *parents)
    done = rlhf(tmp_path, "run", *SMALL, *SAME_EVERYWHERE, *words, "name=two", "stage=ppo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ppo: done in") == 1  # only one of the processes prints
    assert done.stderr == ""
    assert_same_stage(plain, tmp_path / "runs" / "two", "ppo")


def assert_same_run(expected: Path, found: Path) -> None:
    for stage in TOLERANCES:
        assert_same_stage(expected, found, stage)
    found_answers, scores = answers(found)
    assert found_answers == answers(expected)[0]
    assert scores == pytest.approx(answers(expected)[1], abs=1e-3)
    assert_same_figures(expected / "evaluate", found / "evaluate")
    for name in ("data/demonstrations.jsonl", "rationales.jsonl", "figures.json"):
        assert_same_text(*[(run / "rationales" / name).read_text() for run in (expected, found)])


def assert_same_text(expected: str, found: str) -> None:
    """Assert the same text, in which numbers may differ by rounding."""
    assert expected.strip() and NUMBER.sub("", expected) == NUMBER.sub("", found)
    one, other = ([float(number) for number in NUMBER.findall(text)] for text in (expected, found))
    assert other == pytest.approx(one, abs=1e-3)


def assert_same_figures(expected: Path, found: Path) -> None:
    """Every part of the evaluation: win rates, diversity, probes, the reward model, imitation."""
    wanted, given = (read_results(place) for place in (expected, found))
    for one, other in zip(wanted.figures, given.figures, strict=True):
        assert replace(one, value=0, low=None, high=None) == replace(
            other, value=0, low=None, high=None
        )
        assert other.value == pytest.approx(one.value, abs=2e-3, rel=1e-3), one
    assert {one.part for one in wanted.figures} >= {"win_rates", "diversity", "imitation"}
    assert wanted.missing == given.missing


def assert_same_stage(expected: Path, found: Path, stage: str) -> None:
    assert_equal_metrics(metrics(expected / stage), metrics(found / stage), TOLERANCES[stage])
    for folder in ("model", "value_model") if stage == "ppo" else ("model",):
        assert_same_model(expected / stage / folder, found / stage / folder)
    texts = [(run / stage / "samples.jsonl").read_text() for run in (expected, found)]
    assert texts[0] == texts[1]


def answers(run: Path) -> tuple[list[dict], list[float]]:
    """Return the answers of each model, and their scores."""
    rows = [
        json.loads(row) for row in (run / "evaluate" / "answers.jsonl").read_text().splitlines()
    ]
    return rows, [row.pop("score") for row in rows]


def assert_equal_metrics(
    expected: list[dict], found: list[dict], tolerances: dict[str, float]
) -> None:
    assert len(expected) == len(found) > 1
    for name, tolerance in tolerances.items():
        pairs = [(a[name], b[name]) for a, b in zip(expected, found, strict=True) if name in a]
        assert pairs
        for a, b in pairs:
            assert b == pytest.approx(a, abs=tolerance, rel=1e-4), name


def assert_same_model(expected: Path, found: Path) -> None:
    """Assert equal files, names, shapes and weights, which transformers loads."""
    assert {p.name for p in expected.iterdir()} == {p.name for p in found.iterdir()}
    expected_weights = load_file(expected / "model.safetensors")
    found_weights = load_file(found / "model.safetensors")
    assert expected_weights.keys() == found_weights.keys()
    for key, weight in expected_weights.items():
        assert found_weights[key].dtype is torch.float32
        # Adam takes whole steps by gradients that are nothing but rounding: a weight in 10,000 may differ.
        gap = (weight - found_weights[key]).abs()
        assert gap.max() < 1e-3 and (gap > 1e-4).double().mean() < 1e-4, key
    kind = json.loads((found / "config.json").read_text())["architectures"][0]
    auto = AutoModelForCausalLM if "CausalLM" in kind else AutoModelForSequenceClassification
    model, loading = auto.from_pretrained(found, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.slow
def test_a_batch_that_the_processes_do_not_divide_is_refused_with_valid_sizes(tmp_path):
    done = rlhf(
        tmp_path, "run", *SMALL, "stage=sft", "runtime=ddp", "runtime.num_processes=2",
        "sft.batch.size=7",
    )  # fmt: skip
    assert done.returncode == 1
    assert "sft.batch.size=7 cannot be divided among 2 processes: use 6 or 8" in done.stderr

"""Plain, replicated, ZeRO-1, 2 and 3: the same command, the same numbers, the same files.

Every stage starts from the same parents, with the same seed and global batch.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_cli.artifacts.results import read_results
from tests.support.command_line import rlhf
from tests.support.distributed.processes import run_processes
from tests.support.stage_runs import SAME_EVERYWHERE, SMALL, metrics, rows

pytestmark = pytest.mark.dist

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
    words = (*words, "runtime.num_threads=1", f"parents.rm={plain / 'rm' / 'model'}")
    done = rlhf(tmp_path, "run", *SMALL, *SAME_EVERYWHERE, *words, "name=two", "stage=[sft,ppo]")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ppo: done in") == 1  # only one of the processes prints
    assert done.stderr == ""
    for stage in ("sft", "ppo"):
        assert_same_stage(plain, tmp_path / "runs" / "two", stage)


def assert_same_run(expected: Path, found: Path) -> None:
    for stage in TOLERANCES:
        assert_same_stage(expected, found, stage)
    found_answers, scores = answers(found)
    assert found_answers == answers(expected)[0]
    assert scores == pytest.approx(answers(expected)[1], abs=1e-3)
    assert_same_figures(expected / "evaluate", found / "evaluate")
    for name in ("data/demonstrations.jsonl", "rationales.jsonl", "figures.json"):
        written = [(run / "rationales" / name).read_text() for run in (expected, found)]
        assert written[0].strip() and written[0] == written[1], name


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
        assert torch.allclose(weight, found_weights[key], atol=1e-4), key
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


BODIES = "tests.support.distributed.stages"
# interrupted under the first, resumed under the second: (processes, runtime)
MOVES = {
    "plain to zero3": ((1, "cpu"), (2, "zero3")),
    "zero3 to plain": ((2, "zero3"), (1, "cpu")),
    "zero2 to ddp": ((2, "zero2"), (2, "ddp")),
}


def run_in(
    place: tuple[int, str], body: str, stage: str, parents: Path, folder: Path, *args
) -> None:
    processes, runtime = place
    words = [*SAME_EVERYWHERE, f"runtime={runtime}", "runtime.num_threads=1"]
    run_processes(
        processes, f"{BODIES}:{body}", stage, str(parents), str(folder), *args, words, timeout=300
    )


# A checkpoint does not depend on the number of processes or on the sharding of the weights.
@pytest.mark.parametrize(
    ("stage", "step", "move"),
    [
        pytest.param("sft", 3, "zero2 to ddp", marks=pytest.mark.slow),
        pytest.param("rm", 2, "plain to zero3", marks=pytest.mark.slow),
        ("ppo", 3, "zero3 to plain"),
    ],
)
def test_a_stage_resumes_under_another_sharding(plain, tmp_path, stage, step, move):
    first, second = MOVES[move]
    run_in(first, "stopped_work", stage, plain, tmp_path, step)
    run_in(second, "finished_work", stage, plain, tmp_path)
    expected, found = rows(plain / stage), rows(tmp_path / stage)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, abs=1e-3, rel=1e-3)
    expected_weights = load_file(plain / stage / "model" / "model.safetensors")
    found_weights = load_file(tmp_path / stage / "model" / "model.safetensors")
    for name, weight in expected_weights.items():
        assert torch.allclose(weight, found_weights[name], atol=1e-4), name


@pytest.mark.slow
def test_a_stage_resumed_under_the_same_sharding_is_exact(plain, tmp_path):
    """Two processes under ZeRO-3 are interrupted within a rollout, and no bit differs."""
    place = (2, "zero3")
    run_in(place, "finished_work", "ppo", plain, tmp_path / "whole")
    run_in(place, "stopped_work", "ppo", plain, tmp_path / "halved", 3)
    run_in(place, "finished_work", "ppo", plain, tmp_path / "halved")
    one, other = tmp_path / "whole" / "ppo", tmp_path / "halved" / "ppo"
    assert rows(one) == rows(other)
    for path in one.glob("*model/*.safetensors"):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()

"""A checkpoint does not depend on the number of processes or on the sharding of the weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.distributed.processes import run_processes
from tests.support.stage_runs import SAME_EVERYWHERE, rows

pytestmark = [pytest.mark.dist, pytest.mark.slow]  # engines alone: tests/runtime/test_zero.py

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


@pytest.mark.parametrize(
    ("stage", "step", "move"),
    [
        ("sft", 3, "zero2 to ddp"),
        ("rm", 2, "plain to zero3"),
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

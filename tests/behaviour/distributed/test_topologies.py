"""A checkpoint knows neither how many processes wrote it nor how the weights were sharded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.distributed.processes import run_processes
from tests.support.stage_runs import SAME_EVERYWHERE, rows

pytestmark = pytest.mark.dist

BODIES = "tests.support.distributed.stages"
# interrupted under the first, resumed under the second: (processes, runtime)
MOVES = {
    "plain to zero3": ((1, "cpu"), (2, "zero3")),
    "zero3 to plain": ((2, "zero3"), (1, "cpu")),
    "zero2 to ddp": ((2, "zero2"), (2, "ddp")),
}


def go(place: tuple[int, str], body: str, stage: str, parents: Path, folder: Path, *args) -> None:
    processes, runtime = place
    words = [*SAME_EVERYWHERE, f"runtime={runtime}", "runtime.num_threads=1"]
    run_processes(
        processes, f"{BODIES}:{body}", stage, str(parents), str(folder), *args, words, timeout=300
    )


@pytest.mark.parametrize(
    ("stage", "step", "move"),
    [
        pytest.param("sft", 3, "zero2 to ddp", marks=pytest.mark.slow),
        ("rm", 2, "plain to zero3"),
        ("ppo", 3, "zero3 to plain"),
    ],
)
def test_a_stage_goes_on_under_another_sharding(plain, tmp_path, stage, step, move):
    first, second = MOVES[move]
    go(first, "stopped_work", stage, plain, tmp_path, step)
    go(second, "finished_work", stage, plain, tmp_path)
    expected, found = rows(plain / stage), rows(tmp_path / stage)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, abs=1e-3, rel=1e-3)
    ours = load_file(plain / stage / "model" / "model.safetensors")
    theirs = load_file(tmp_path / stage / "model" / "model.safetensors")
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name], atol=1e-4), name


@pytest.mark.slow
def test_the_same_sharding_goes_on_bit_for_bit(plain, tmp_path):
    """Two processes under ZeRO-3, in the middle of a rollout: no digit differs."""
    place = (2, "zero3")
    go(place, "finished_work", "ppo", plain, tmp_path / "whole")
    go(place, "stopped_work", "ppo", plain, tmp_path / "halved", 3)
    go(place, "finished_work", "ppo", plain, tmp_path / "halved")
    one, other = tmp_path / "whole" / "ppo", tmp_path / "halved" / "ppo"
    assert rows(one) == rows(other)
    for path in one.glob("*model/*.safetensors"):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()

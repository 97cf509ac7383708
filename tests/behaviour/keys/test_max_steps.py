"""*.max_steps shortens a stage: schedule, selection, export and preview follow it."""

import json
from pathlib import Path

import pytest

from rlhf_cli.stages import rm, sft
from rlhf_cli.stages.ppo import stage as ppo
from rlhf_cli.stages.rollout.episodes import num_iterations
from rlhf_cli.stages.training import lr_factor
from tests.support.small_stages import changed, little, work


def rows(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if "step" in row]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Run sft and rm with two epochs and max_steps=3; return their folder."""
    place = tmp_path_factory.mktemp("short")
    for name in ("sft", "rm"):
        work(name, place, {f"{name}.epochs": 2, f"{name}.max_steps": 3, f"{name}.batch.size": 7})
    return place


@pytest.mark.parametrize("name", ["sft", "rm"])
def test_the_schedule_covers_the_steps_of_max_steps(folder, name):
    found = rows(folder / name)
    cfg = getattr(little(), name)
    assert [row["step"] for row in found] == [1, 2, 3]
    expected = [cfg.optim.lr * lr_factor(cfg.schedule, step, 3) for step in range(3)]
    assert [row[f"{name}/lr"] for row in found] == pytest.approx(expected)
    assert (folder / name / "model" / "model.safetensors").is_file()


def test_the_last_step_is_evaluated_like_the_end_of_an_epoch(folder):
    found = {row["step"]: row["sft/epoch"] for row in rows(folder / "sft") if "sft/epoch" in row}
    assert found == {2: 1.0, 3: 1.5}
    assert "sft/eval_loss" in rows(folder / "sft")[-1]


@pytest.mark.parametrize("stage", [sft, rm])
@pytest.mark.parametrize(("max_steps", "expected"), [(3, "3 in total"), (None, "4 in total")])
def test_a_dry_run_counts_the_steps_of_max_steps(stage, max_steps, expected):
    name = stage.__name__.rpartition(".")[2]
    values = {f"{name}.epochs": 2, f"{name}.max_steps": max_steps, f"{name}.batch.size": 7}
    assert expected in stage.preview(changed(little(), values), {}).facts["optimizer steps"]


@pytest.mark.parametrize(
    ("max_steps", "iterations", "steps", "passes"), [(None, 4, 8, 16), (2, 2, 4, 8), (9, 4, 8, 16)]
)
def test_max_steps_of_ppo_counts_iterations(max_steps, iterations, steps, passes):
    values = {
        "ppo.total_episodes": 16, "ppo.batch.rollout": 4, "ppo.batch.minibatch": 4,
        "ppo.inner_epochs": 2, "ppo.max_steps": max_steps,
    }  # fmt: skip
    cfg = changed(little(), values)
    facts = ppo.preview(cfg, {}).facts
    assert num_iterations(cfg.ppo) == iterations
    assert facts["iterations"] == f"{iterations} of 4 episodes"
    assert facts["optimizer steps"] == f"{steps} at most"
    prompts = int(facts["prompts"].split()[0])
    assert facts["passes over the prompts"] == f"{passes / prompts:.1f}"

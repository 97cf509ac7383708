"""Learning curves: which metrics are drawn where, and the thinning of long ones."""

import pytest

from rlhf_cli.report.learning_curves import MOST, curves_of, learning_curves, thinned
from rlhf_cli.report.run_groups import grouped
from tests.support.run_files import run_of

SFT = [
    {"time": 0.0, "total_steps": 2},
    {"step": 1, "sft/loss": 2.0, "sft/lr": 0.1, "loss/policy_avg": 9.0},
    {"step": 2, "sft/loss": None, "sft/eval_loss": 1.5},
    {"time": 3.0, "cost/seconds": 3.0},
]
PPO = [{"step": 1, "objective/scores": 0.5, "objective/kl": 0.0, "objective/entropy": 0.75}]


def blocks(*runs) -> list[dict]:
    return learning_curves(grouped(runs), {"SFT": "c1", "PPO": "c2"})


def test_metrics_are_known_by_the_last_part_of_their_names():
    assert curves_of(SFT, "sft") == {"loss": [(1.0, 2.0)], "eval_loss": [(2.0, 1.5)]}
    assert curves_of(PPO, "ppo")["scores"] == [(1.0, 0.5)]
    assert curves_of([{"step": 3, "rewards/accuracies": 0.75}], "dpo") == {
        "accuracies": [(3.0, 0.75)]
    }


def test_each_stage_has_a_heading_and_a_chart_per_kind_of_figure():
    found = blocks(run_of(metrics={"ppo": PPO, "sft": SFT, "rm": []}))
    assert [one.get("text") or one["title"] for one in found] == [
        "SFT: imitate the demonstrations",
        "Loss",
        "PPO: raise the score, close to the SFT model",
        "Score",
        "Distance from SFT",
        "Entropy",
    ]
    loss = found[1]
    assert [one["points"] for one in loss["series"]] == [[{"x": 1, "y": 2}], [{"x": 2, "y": 1.5}]]
    assert loss["legend"] == [
        {"name": "training", "colour": "c1", "dashed": False},
        {"name": "held out", "colour": "ink", "dashed": True},
    ]
    assert found[3]["series"][0]["colour"] == "c2" and found[3]["legend"] == []


def test_runs_of_several_groups_have_a_colour_each_and_seeds_share_one():
    def run(name, seed, epochs):
        stages = {"sft": {"config": {"sft.epochs": epochs}}}
        return run_of(name, seed=seed, stages=stages, metrics={"sft": SFT[:2]})

    (_, seeds) = blocks(run("a", 1, 2), run("b", 2, 2))
    assert [one["name"] for one in seeds["series"]] == ["training, a", "training, b"]
    assert {one["colour"] for one in seeds["series"]} == {"c1"}
    (_, apart) = blocks(run("a", 1, 2), run("b", 2, 2), run("c", 1, 3))
    assert [one["colour"] for one in apart["series"]] == ["c1", "c1", "c2"]
    assert [one["name"] for one in apart["legend"]] == ["training · a and 1 more", "training · c"]


@pytest.mark.parametrize("number", [1, MOST, MOST + 1, 1000])
def test_a_long_curve_is_thinned_by_plain_means(number):
    points = [(float(i), float(i % 7)) for i in range(number)]
    found = thinned(points)
    size = -(-number // MOST)
    assert len(found) == -(-number // size) <= MOST
    last = points[(len(found) - 1) * size :]
    assert found[-1] == pytest.approx(
        (sum(x for x, _ in last) / len(last), sum(y for _, y in last) / len(last))
    )
    weights = [min(size, number - i * size) for i in range(len(found))]
    mean = sum(w * y for w, (_, y) in zip(weights, found, strict=True)) / number
    assert mean == pytest.approx(sum(y for _, y in points) / number)

"""Score and worth against the distance from SFT, and score against length."""

import numpy as np
import pytest

from rlhf_cli.report.quality_charts import MOST, distance_charts, length_charts
from rlhf_cli.report.run_groups import colours_of, grouped
from tests.support.run_files import answer, run_of

ROWS = {
    "base": {"score": [-1, -1.1, -0.9], "kl": [14, 13, 15], "gold": [-1, -1, -1]},
    "SFT": {"score": [0, -0.1, 0.1], "kl": [0, 0, 0], "gold": [1.4, 1.3, 1.5]},
    "PPO": {"score": [1.5, 1.4, 1.6], "kl": [2.25, 2, 2.5], "gold": [2, 1.9, 2.1]},
}
WATCH = [
    {"iteration": 0, "score": 0.0, "kl": -0.01, "check": 0.1},
    {"iteration": 8, "score": 1.0, "kl": 1.0, "check": None, "best": True},
    {"iteration": 16, "score": 2.0, "kl": 4.0, "best": True},
    {"iteration": 24, "score": 3.0, "kl": None, "best": False},
]
CURVE = [{"n": 1, "kl": 0.0, "score": [0, -0.1, 0.1]}, {"n": 4, "kl": 0.64, "score": 0.75}]


def distances(*runs) -> dict[str, dict]:
    groups = grouped(runs)
    return {one["title"]: one for one in distance_charts(groups, colours_of(groups))}


def test_policies_checkpoints_and_best_of_n_stand_at_the_root_of_their_kl():
    charts = distances(run_of(rows=ROWS, watch={"ppo": WATCH}, best_of_n=CURVE))
    assert list(charts) == ["Score: what was optimised", "Gold utility"]
    series = charts["Score: what was optimised"]["series"]
    found = [(one["name"], [(p["x"], p["y"]) for p in one["points"]]) for one in series]
    assert found == [
        ("best of n", [(0, 0), (pytest.approx(0.8), 0.75)]),
        ("PPO", [(0, 0.0), (1, 1.0), (2, 2.0)]),
        ("SFT", [(0, 0)]),
        ("PPO", [(1.5, 1.5)]),
    ]
    assert [one["radius"] for one in series] == [2.5, 2.5, 5, 5]
    assert [p["ring"] for p in series[1]["points"]] == [False, False, True]
    assert series[3]["points"][0]["tip"] == "PPO\n1.50\n[1.40, 1.60]"
    rows = charts["Gold utility"]["numbers"]["rows"]
    assert {"head": ["PPO"], "cells": [["2.25"], ["1.50"], ["2.00", "[1.90, 2.10]"]]} in rows


def test_a_worth_that_nothing_measured_and_runs_without_distance_have_no_chart():
    assert distances(run_of(rows={"SFT": ROWS["SFT"]})) == {}
    assert distances(run_of()) == {}
    further = [WATCH[0], WATCH[1] | {"check": 0.5}]
    assert list(distances(run_of(watch={"ppo": further}))) == [
        "Score: what was optimised", "Score of a second reward model",
    ]  # fmt: skip


def test_a_policy_of_several_seeds_is_one_point_at_their_mean():
    other = ROWS | {"PPO": {"score": [2.5, 2, 3], "kl": [5.75, 5, 6]}}
    charts = distances(run_of("a", rows=ROWS), run_of("b", seed=2, rows=other))
    (point,) = charts["Score: what was optimised"]["series"][-1]["points"]
    assert (point["x"], point["y"]) == (2.0, 2.0)


def lengths(answers: list[dict]) -> list[dict]:
    groups = grouped([run_of(answers=answers)])
    return length_charts(groups, colours_of(groups))


def test_the_line_of_score_against_length_is_the_least_squares_line():
    rng = np.random.default_rng(1)
    x, y = rng.integers(1, 30, 50), rng.normal(size=50)
    pairs = [{"tokens": int(t), "score": float(s)} for t, s in zip(x, y, strict=True)]
    (chart,) = lengths([answer("PPO", **one) for one in pairs])
    slope, intercept = np.polyfit(x, y, 1)
    ends = [[end, intercept + slope * end] for end in (x.min(), x.max())]
    assert np.array(chart["series"][0]["fit"]) == pytest.approx(np.array(ends))
    assert f"50 answers; correlation {np.corrcoef(x, y)[0, 1]:+.2f}." == chart["caption"]


def test_policies_share_the_axes_and_many_answers_are_drawn_in_part():
    many = [answer("PPO", tokens=5 + i % 3, score=i / 100) for i in range(MOST * 2 + 1)]
    one = [answer("SFT", tokens=30, score=-1.0), answer("SFT", tokens=30), answer("SFT", score=1)]
    ppo, sft = lengths([*many, *one])
    assert ppo["x"]["domain"] == sft["x"]["domain"] == [5, 30]
    assert ppo["y"]["domain"] == [-1, 8]
    assert (
        len(ppo["series"][0]["points"]) == 267
        and "801 answers, 267 of them drawn" in ppo["caption"]
    )
    assert sft["series"][0]["fit"] is None
    assert sft["caption"] == "1 answer; no line: all are of the same length."
    assert lengths([answer("PPO", score=1.0)]) == []

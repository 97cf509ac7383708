"""The reward model's section: calibration of every run, and its report."""

from rlhf_cli.report.reward_charts import reward_blocks
from rlhf_cli.report.run_groups import grouped
from tests.support.run_files import run_of

BINS = [
    {"low": 0.5, "high": 0.6, "count": 1200, "confidence": 0.55, "accuracy": 0.5},
    {"low": 0.9, "high": 1.0, "count": 10, "confidence": 0.95, "accuracy": 1.0},
]


def test_bins_are_points_of_what_was_expected_and_what_was_right():
    (chart, table), note = reward_blocks(
        grouped([run_of(reward_report={"calibration": BINS, "ece": 0.1})])
    )
    (series,) = chart["series"]
    assert [(p["x"], p["y"], p["pairs"]) for p in series["points"]] == [
        (0.55, 0.5, "1,200"), (0.95, 1.0, "10"),
    ]  # fmt: skip
    assert chart["diagonal"] and chart["legend"] == [] and "longer response" in note
    assert chart["numbers"]["rows"][1] == {
        "head": ["one", "0.9 to 1.0"], "cells": [["0.950"], ["1.000"], ["10"]],
    }  # fmt: skip
    assert len(table["rows"]) == 1


def test_several_runs_have_a_line_each_and_none_leaves_no_block():
    runs = [run_of(f"s{s}", seed=s, reward_report={"calibration": BINS}) for s in (1, 2)]
    (chart,), _ = reward_blocks(grouped(runs))
    assert [one["name"] for one in chart["series"]] == ["s1", "s2"]
    assert reward_blocks(grouped([run_of()]))[0] == []

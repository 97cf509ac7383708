"""The reward model on held-out comparisons: its figures, and whether its confidence is deserved."""

from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_cli.report.run_groups import COLOURS, Group
from rlhf_cli.report.run_tables import reward_report_table
from rlhf_cli.report.study_charts import Block

NOTE = (
    "How well the reward model repeats the annotators' choices on comparisons that it was not trained on. "
    "Its interval of accuracy should be above 0.5 and above what preferring the longer response reaches."
)
CALIBRATION = (
    "Pairs in groups by how sure the reward model is: how often it is right against how often it "
    "expects to be. On the dashed line: as often as it expects; below it: too sure of itself."
)


def reward_blocks(groups: Sequence[Group]) -> tuple[list[Block], str]:
    """Return the blocks of the section and its note."""
    series = [
        one for i, group in enumerate(groups) for one in _series(group, f"c{i % COLOURS + 1}")
    ]
    table = reward_report_table(groups)
    chart = [_calibration(series)] if series else []
    return [*chart, *([table] if table else [])], NOTE


def _calibration(series: Sequence[dict[str, Any]]) -> Block:
    names = dict.fromkeys((one["name"], one["colour"]) for one in series)
    rows = [
        {
            "head": [one["name"], p["bin"]],
            "cells": [[f"{p['x']:.3f}"], [f"{p['y']:.3f}"], [p["pairs"]]],
        }
        for one in series
        for p in one["points"]
    ]
    columns = [["expected"], ["right"], ["pairs"]]
    return {
        "kind": "lines",
        "title": "Calibration",
        "caption": CALIBRATION,
        "legend": [{"name": n, "colour": c} for n, c in names] if len(names) > 1 else [],
        "x": {"label": "expected share of right choices", "log": False, "domain": [0.5, 1]},
        "y": {"label": "share of right choices", "log": False, "within": [0, 1]},
        "diagonal": True,
        "series": list(series),
        "numbers": {"kind": "table", "title": "", "columns": columns, "rows": rows},
    }


def _series(group: Group, colour: str) -> Iterator[dict[str, Any]]:
    for run in group.runs:
        points = [
            {
                "x": one["confidence"],
                "y": one["accuracy"],
                "bin": f"{one['low']:.1f} to {one['high']:.1f}",
                "pairs": f"{one['count']:,}",
                "tip": f"{one['count']:,} pairs\nright: {one['accuracy']:.2f}",
            }
            for one in run.reward_report.get("calibration") or ()
        ]
        if points:
            name = run.state.name if len(group.runs) > 1 else group.name
            yield {"name": name, "colour": colour, "points": points, "fit": None}

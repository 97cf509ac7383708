"""What the score is worth: score and true worth against the distance from SFT, and against length.

Best-of-n optimises the same score without training, so that its curve is what others are compared with.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import StatisticsError, correlation, fmean, linear_regression
from typing import Any

from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.embedded import utility_labels
from rlhf_cli.report.run_files import RunFiles
from rlhf_cli.report.run_groups import BASE, Group, over_seeds, policies_of
from rlhf_cli.report.study_charts import Block
from rlhf_cli.report.table import number

BEST_OF_N = "best of n"
DISTANCE = "square root of the KL to SFT, in nats"
MOST = 400  # answers of a policy in a chart
SCORE, CHECK = "score", "check"
TITLES = {SCORE: "Score: what was optimised", CHECK: "Score of a second reward model"}
CAPTIONS = {
    SCORE: "By the reward model that the policies were trained on: it rises almost always.",
    CHECK: "By a reward model that no policy was trained on: it should rise too.",
}
WORTH = "The true quality of the answers, which no model was shown: it should rise too."
LARGE = "Large dots: the finished policies, with 95\N{NO-BREAK SPACE}% intervals."
SMALL = " Small dots: checkpoints on a few held-out prompts; a ring is the one to take."


def distance_charts(groups: Sequence[Group], colours: Mapping[str, str]) -> list[Block]:
    """Return a chart per kind of worth: score, true utility, second score; none without distances."""
    kinds = (SCORE, *utility_labels(), CHECK)
    return [chart for kind in kinds if (chart := _distance_chart(kind, groups, colours))]


def _distance_chart(kind: str, groups: Sequence[Group], colours: Mapping[str, str]) -> Block | None:
    series = [one for group in groups for one in _group_series(kind, group, colours)]
    if not any(point["x"] > 0 for one in series for point in one["points"]):
        return None
    watched = any(one["radius"] < 4 for one in series)
    names = dict.fromkeys((one["name"], one["colour"]) for one in series)
    rows = [
        {"head": [one["name"]], "cells": [[f"{p['x'] ** 2:.2f}"], [f"{p['x']:.2f}"], _words(p)]}
        for one in series
        for p in one["points"]
    ]
    return {
        "kind": "lines",
        "title": TITLES.get(kind) or utility_labels()[kind].capitalize(),
        "caption": " ".join([CAPTIONS.get(kind, WORTH), LARGE + (SMALL if watched else "")]),
        "legend": [{"name": name, "colour": colour} for name, colour in names],
        "x": {"label": DISTANCE, "log": False},
        "y": {"label": "mean per answer", "log": False},
        "series": series,
        "numbers": {
            "kind": "table",
            "title": "",
            "columns": [["KL"], ["its root"], ["mean"]],
            "rows": rows,
        },
    }


def _group_series(kind: str, group: Group, colours: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield best-of-n's curve and the checkpoints of every run, then the finished policies."""
    for run in group.runs:
        if curve := _curve(kind, run.best_of_n):
            name = group.column(BEST_OF_N)
            yield _one_series(name, "neutral", curve, radius=2.5)
        for stage, lines in run.watch.items():
            name = group.column(STAGES[stage].label)
            if points := _watched(kind, lines):
                yield _one_series(name, colours.get(name, "c1"), points, radius=2.5)
    for policy in _evaluated(group.runs):
        name = group.column(policy)
        if point := _finished(kind, group.runs, policy):
            yield _one_series(name, colours[name], [point], radius=5)


def _one_series(
    name: str, colour: str, points: Sequence[Mapping[str, Any]], *, radius: float
) -> dict[str, Any]:
    shown = [{**p, "tip": "\n".join([name, *p.get("about", ()), *_words(p)])} for p in points]
    return {"name": name, "colour": colour, "points": shown, "fit": None, "radius": radius}


def _words(point: Mapping[str, Any]) -> list[str]:
    """Return a mean and, where there is one, its interval."""
    low, high = point["low"], point["high"]
    if low is None or high is None:
        return [number(point["y"], 0.1)]
    width = high - low
    return [number(point["y"], width), f"[{number(low, width)}, {number(high, width)}]"]


def _curve(kind: str, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the points of best-of-n. A value of theirs is a mean, or (mean, low, high)."""
    return [
        _point(one["kl"], one[kind]) | {"about": [f"n = {one['n']}"]}
        for one in points
        if one.get(kind) is not None
    ]


def _watched(kind: str, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the points of checkpoints; of those that were the best so far the last one is to take."""
    best = max((i for i, one in enumerate(lines) if one.get("best")), default=None)
    return [
        _point(one["kl"], one[kind])
        | {"about": [f"iteration {one['iteration']}"], "ring": i == best}
        for i, one in enumerate(lines)
        if one.get(kind) is not None and one.get("kl") is not None
    ]


def _point(kl: float, value: float | Sequence[float]) -> dict[str, Any]:
    y, low, high = value if isinstance(value, Sequence) else (value, None, None)
    return {"x": math.sqrt(max(0.0, kl)), "y": y, "low": low, "high": high}


def _evaluated(runs: Sequence[RunFiles]) -> list[str]:
    """Return the policies of the closing tables but the base model, which is too far away to be shown."""
    rows = [(run.state.table or {"rows": {}})["rows"] for run in runs]
    return [name for name in dict.fromkeys(name for row in rows for name in row) if name != BASE]


def _finished(kind: str, runs: Sequence[RunFiles], policy: str) -> dict[str, Any] | None:
    """Return the point of a policy in the closing tables, the mean over seeds."""
    rows = [
        (run.seed, run.state.table["rows"].get(policy) or {}) for run in runs if run.state.table
    ]
    known = [(seed, row) for seed, row in rows if row.get(kind) and row.get("kl")]
    if not known:
        return None
    mean = over_seeds([(seed, row[kind]) for seed, row in known])
    return _point(
        fmean(row["kl"][0] for _, row in known), (mean["value"], mean["low"], mean["high"])
    )


def length_charts(groups: Sequence[Group], colours: Mapping[str, str]) -> list[Block]:
    """Return a small chart per column: the score of its answers against their tokens, on the same axes."""
    found: dict[str, list[tuple[float, float]]] = {column: [] for column in colours}
    for group in groups:
        columns = {policy: group.column(policy) for policy in policies_of([group])}
        for one in (one for run in group.runs for one in run.answers):
            if one.get("tokens") is not None and one.get("score") is not None:
                point = (float(one["tokens"]), float(one["score"]))
                found[columns[str(one["model"])]].append(point)
    found = {column: points for column, points in found.items() if points}
    if not found:
        return []
    x, y = ([p[i] for points in found.values() for p in points] for i in (0, 1))
    ends = {"x": [min(x), max(x)], "y": [min(y), max(y)]}
    return [_length_chart(name, points, colours[name], ends) for name, points in found.items()]


def _length_chart(
    name: str, points: Sequence[tuple[float, float]], colour: str, ends: Mapping[str, list[float]]
) -> Block:
    """Return the chart of a column. Its line and correlation are of all answers, its dots of some."""
    step = -(-len(points) // MOST)
    some = points[::step]
    words = "no line: all are of the same length" if len({x for x, _ in points}) < 2 else ""
    fit, r = None, _correlation(points)
    if not words:
        slope, intercept = linear_regression(*zip(*points, strict=True))
        x = [min(x for x, _ in points), max(x for x, _ in points)]
        fit = [[at, intercept + slope * at] for at in x]
        words = "correlation unknown" if r is None else f"correlation {r:+.2f}"
    shown = f", {len(some)} of them drawn" if step > 1 else ""
    plural = "answer" if len(points) == 1 else "answers"
    return {
        "kind": "lines",
        "small": True,
        "title": name,
        "caption": f"{len(points)} {plural}{shown}; {words}.",
        "legend": [],
        "x": {"label": "tokens", "log": False, "domain": ends["x"]},
        "y": {"label": "score", "log": False, "domain": ends["y"]},
        "series": [
            {
                "name": name,
                "colour": colour,
                "points": [{"x": x, "y": y} for x, y in some],
                "fit": fit,
                "radius": 2,
            }
        ],
        "numbers": None,
    }


def _correlation(points: Sequence[tuple[float, float]]) -> float | None:
    """Return Pearson's r; None where one side is constant."""
    try:
        return correlation(*zip(*points, strict=True))
    except StatisticsError:
        return None

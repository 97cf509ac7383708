"""The charts of instruction tuning, from the figures of `task_study`, each with its numbers as a table.

A chart is a dict of JSON values, drawn by page.js: bars in groups, or points of series on two axes.
Every number that a person reads is text here; the script formats those of the axes alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from rlhf_cli.report.study_table import CURVES, MEAN, PARADIGMS, compared, interval
from rlhf_cli.report.table import number

Block = dict[str, Any]
Found = Mapping[str, Any]

COLOURS = {"prompting": "neutral", "finetuned": "second", "instruction_tuned": "accent"}  # page.css
TUNED = {False: ("base", "neutral"), True: ("tuned", "accent")}
AXES = {"clusters": "clusters trained on", "templates": "templates per task trained on"}
FIGURE, ACCURACY = "figure of the task, from 0 to 1", "mean over unseen clusters, from 0 to 1"
INTERVAL = "95\N{NO-BREAK SPACE}% interval over seeds, of one run over rows."
BARS = (
    "Bar: mean over templates. Wide band: one standard deviation over templates to each side. "
    f"Thin line: {INTERVAL}"
)
CHANCE = " Dashed: what a random option would reach."
MEANS = " The mean of a model is over the tasks that all its bars have."
LINES = f"Vertical line: {INTERVAL}"
UNTRAINED = " At 0 the base model."


def charts_of(study: Found) -> list[Block]:
    """Return the charts of what a study has: paradigms, curves, scale."""
    curves = [
        _curve(study[f"{key}_curve"], key, label)
        for key, label in AXES.items()
        if study.get(f"{key}_curve")
    ]
    return [*_paradigms(study), *curves, *_scale(study.get("scale") or {"points": []})]


def _paradigms(study: Found) -> Iterator[Block]:
    """Yield the chart of means over clusters, and that of the tasks by cluster."""
    if means := compared(study):
        mean = {"name": MEAN, "chance": None, "bars": means}
        yield _bars([mean], title="Paradigms", note=MEANS)
    tasks = sorted(study.get("paradigms", ()), key=lambda one: str(one["cluster"]))
    groups = [one | {"name": f"{one['cluster']}: {one['task']}"} for one in tasks if one["bars"]]
    if groups:
        known = any(one["chance"] is not None for one in groups)
        yield _bars(groups, title="Every task", note=CHANCE if known else "")


def _bars(groups: Sequence[Found], *, title: str, note: str) -> Block:
    """Return a chart with a heading per group and its bars below it."""
    rows, spans, numbers = [], [], []
    several = len({one["model"] for group in groups for one in group["bars"]}) > 1
    for i, group in enumerate(groups):
        rows.append({"id": f"{i}", "group": group["name"]})
        bars = [
            _bar(one, group["name"], several) | {"id": f"{i}.{j}"}
            for j, one in enumerate(group["bars"])
        ]
        rows += bars
        span = {"first": bars[0]["id"], "last": bars[-1]["id"], "chance": group["chance"]}
        spans.append(span)
        numbers += [_bar_numbers(group, one) for one in group["bars"]]
    used = {one["paradigm"]: None for group in groups for one in group["bars"]}
    return {
        "kind": "bars",
        "title": title,
        "caption": BARS + note,
        "legend": [{"name": PARADIGMS[k], "colour": c} for k, c in COLOURS.items() if k in used],
        "x": FIGURE,
        "rows": rows,
        "spans": spans,
        "numbers": _table(
            ["paradigm", "model", "figure", "over templates", "chance", "seeds"], numbers
        ),
    }


def _bar(one: Found, group: str, several: bool) -> Block:
    """Return a bar of a group. several: the chart has several models, so that bars name theirs."""
    shots = f"{one['shots']}-shot"
    tip = [group, PARADIGMS[one["paradigm"]], f"{one['model']}, {shots}", *_words(one)]
    return {
        "label": f"{one['model']}, {shots}" if several else shots,
        "colour": COLOURS[one["paradigm"]],
        "value": one["value"],
        "low": one["low"],
        "high": one["high"],
        "std": one["template_std"],
        "shown": _interval(one)[0],
        "tip": "\n".join(tip),
    }


def _bar_numbers(group: Found, one: Found) -> Block:
    cells = [
        [PARADIGMS[one["paradigm"]]],
        [f"{one['model']}, {one['shots']}-shot"],
        _interval(one),
        ["-" if one["template_std"] is None else f"±{one['template_std']:.2f}"],
        ["-" if group["chance"] is None else f"{group['chance']:.2f}"],
        [str(one["runs"])],
    ]
    return {"head": [group["name"]], "cells": cells}


def _curve(points: Sequence[Found], key: str, label: str) -> Block:
    some = sorted(points, key=lambda one: one[key])
    shown = [_point(one, x=one[key], y="value", about=f"{one[key]} {label}") for one in some]
    rows = [
        {"head": [str(one[key])], "cells": [_interval(one), [str(one["runs"])]]} for one in some
    ]
    return {
        "kind": "lines",
        "title": CURVES[key].capitalize(),
        "caption": LINES + (UNTRAINED if any(one[key] == 0 for one in points) else ""),
        "legend": [],
        "x": {"label": label, "log": False},
        "y": {"label": ACCURACY, "log": False, "within": [0, 1]},
        "series": [
            {
                "name": PARADIGMS["instruction_tuned"],
                "colour": "accent",
                "points": shown,
                "fit": None,
            }
        ],
        "numbers": _table(["figure", "seeds"], rows),
    }


def _scale(scale: Found) -> Iterator[Block]:
    """Yield accuracy and loss against parameters, each where the points have it."""
    slopes = scale.get("slopes") or {}
    for key, title, label in (
        ("accuracy", "Unseen clusters, by model", ACCURACY),
        ("loss", "Loss, by model", "loss, nats per token of the right answer"),
    ):
        series = [_series(scale["points"], slopes, key, tuned) for tuned in TUNED]
        series = [one for one in series if one["points"]]
        if series:
            is_loss = key == "loss"
            yield {
                "kind": "lines",
                "title": title,
                "caption": _slopes(series, slopes) if is_loss else LINES,
                "legend": [{"name": one["name"], "colour": one["colour"]} for one in series],
                "x": {"label": "parameters", "log": True},
                "y": {"label": label, "log": is_loss, "within": None if is_loss else [0, 1]},
                "series": series,
                "numbers": _scale_numbers(scale["points"], key),
            }


def _series(points: Sequence[Found], slopes: Found, key: str, tuned: bool) -> Block:
    name, colour = TUNED[tuned]
    some = [one for one in points if one["tuned"] is tuned and one.get(key) is not None]
    some.sort(key=lambda one: one["parameters"])
    shown = [
        _point(one, x=one["parameters"], y=key, about=f"{one['model']}, {name}") for one in some
    ]
    slope = slopes.get(name) if key == "loss" else None
    return {"name": name, "colour": colour, "points": shown, "fit": _fit(shown, slope)}


def _fit(points: Sequence[Found], slope: float | None) -> list[list[float]] | None:
    """Return the ends of the line of this slope through the means of log x and log y."""
    if slope is None or len(points) < 2:
        return None
    x, y = ([math.log(one[axis]) for one in points] for axis in ("x", "y"))
    return [[math.exp(end), math.exp(fmean(y) + slope * (end - fmean(x)))] for end in (x[0], x[-1])]


def _slopes(series: Sequence[Found], slopes: Found) -> str:
    found = [f"{one['name']} {slopes[one['name']]:.3f}" for one in series if one["fit"]]
    lines = f" Dashed: least squares, slope of log loss per log parameters: {', '.join(found)}."
    return "Both axes are logarithmic." + (lines if found else "")


def _scale_numbers(points: Sequence[Found], key: str) -> Block:
    some = sorted(points, key=lambda one: (one["parameters"], one["tuned"]))
    rows = [
        {
            "head": [f"{one['model']}, {TUNED[one['tuned']][0]}"],
            "cells": [
                [f"{one['parameters']:,}"],
                _interval(one, key),
                [str(one["runs"])],
            ],
        }
        for one in some
        if one.get(key) is not None
    ]
    return _table(["parameters", key, "seeds"], rows)


def _point(one: Found, *, x: float, y: str, about: str) -> Block:
    ends = dict.fromkeys(("low", "high")) if y == "loss" else {k: one[k] for k in ("low", "high")}
    return {"x": x, "y": one[y], "tip": "\n".join([about, *_words(one, y)])} | ends


def _words(one: Found, key: str = "value") -> list[str]:
    """Return a figure in words: the interval, the spread over templates, how many runs."""
    spread = one.get("template_std")
    return [
        " ".join(_interval(one, key)),
        *([] if spread is None else [f"±{spread:.2f} over templates"]),
        *([f"mean of {one['runs']} seeds"] if one["runs"] > 1 else []),
    ]


def _interval(one: Found, key: str = "value") -> list[str]:
    """Return a figure and, where there is one, its interval; of a loss the figure alone."""
    if key == "loss" or one["low"] is None or one["high"] is None:
        return [f"{one[key]:.3f}"]
    return [number(one[key], one["high"] - one["low"]), interval(one)]


def _table(columns: Sequence[str], rows: Sequence[Found]) -> Block:
    return {
        "kind": "table",
        "title": "",
        "columns": [[name] for name in columns],
        "rows": list(rows),
    }

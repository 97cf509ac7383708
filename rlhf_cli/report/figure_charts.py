"""Charts of dots with intervals, and tables, of the figures in results.json."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.report.figure_words import judge_words, label_of_measure
from rlhf_cli.report.run_groups import COLOURS, Mean, heading_of
from rlhf_cli.report.study_charts import Block
from rlhf_cli.report.table import number

Named = Callable[[Mean], str]


@dataclass(slots=True, kw_only=True, frozen=True)
class Dots:
    """What a chart of dots shows. line, series: the names under which a figure stands.

    reference: a value to compare with, such as that of chance. band: a range that is drawn behind it.
    """

    title: str
    caption: str
    line: Named
    series: Named
    reference: float | None = None
    band: Callable[[Mean], tuple[float, float] | None] = lambda one: None


def dots_chart(dots: Dots, family: Sequence[Mean], colours: Mapping[str, str]) -> Block:
    """Return a chart with a line per name, and a dot per series in it."""
    lines, series = (list(dict.fromkeys(map(name, family))) for name in (dots.line, dots.series))
    several = lines != series and len(series) > 1
    other = [f"c{i % COLOURS + 1}" if several else "accent" for i in range(len(series))]
    colour = {name: colours.get(name, other[i]) for i, name in enumerate(series)}
    columns = [["figure"], ["observations"], ["runs"]]
    return {
        "kind": "dots",
        "title": dots.title,
        "caption": dots.caption,
        "legend": [{"name": name, "colour": colour[name]} for name in series] if several else [],
        "lines": lines,
        "reference": dots.reference,
        "points": [
            {
                "line": lines.index(dots.line(one)),
                "colour": colour[dots.series(one)],
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "band": dots.band(one),
                "tip": "\n".join([*_names(dots, one), *cell_of(one), *_counts(one)]),
            }
            for one in family
        ],
        "numbers": {
            "kind": "table",
            "title": "",
            "columns": columns,
            "rows": [
                {
                    "head": _names(dots, one),
                    "cells": [cell_of(one), [f"{one.count:,}"], [str(one.runs)]],
                }
                for one in family
            ],
        },
    }


def _names(dots: Dots, one: Mean) -> list[str]:
    return list(dict.fromkeys([dots.line(one), dots.series(one)]))


def _counts(one: Mean) -> Iterator[str]:
    yield f"{one.count:,} observations"
    if one.runs > 1:
        yield f"mean of {one.runs} runs"


def figure_table(means: Sequence[Mean]) -> Block:
    """Return the table of figures: a row per measure, judge, prompts and group, a column per policy."""
    columns = list(dict.fromkeys(one.column for one in means))
    rows: dict[tuple[str, ...], dict[str, Mean]] = {}
    for one in means:
        about = _about(one.figure)
        head = (label_of_measure(one.figure.measure), *([about] if about else []))
        rows.setdefault(head, {})[one.column] = one
    return {
        "kind": "table",
        "title": "",
        "columns": [heading_of(name) for name in columns],
        "rows": [
            {"head": list(head), "cells": [cell_of(row.get(name)) for name in columns]}
            for head, row in rows.items()
        ],
    }


def _about(one: Figure) -> str:
    """Return prompts, group and judge of a figure in words."""
    judge = f"by {judge_words(one.judge)}" if one.judge else None
    length = one.part == "diversity" and one.group is not None and one.group.isdecimal()
    group = f"sequences of {one.group}" if length else one.group
    return ", ".join(word for word in (one.prompts, group, judge) if word)


def cell_of(one: Mean | None) -> list[str]:
    return ["-"] if one is None else figure_cell(one.value, one.low, one.high)


def figure_cell(value: float, low: float | None, high: float | None) -> list[str]:
    """Return a figure and, where there is one, its interval."""
    if low is None or high is None:
        return [f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"]
    width = high - low
    return [number(value, width), f"[{number(low, width)}, {number(high, width)}]"]

"""Charts and tables of the figures in results.json: whatever parts and measures it has.

A chart has a line per name and a dot with its interval per series. A figure is in one place: in a chart
with its numbers, or, where it has none to compare with, in the table of its part.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.report.figure_words import caption_of, label_of_measure
from rlhf_cli.report.run_groups import Mean, heading_of
from rlhf_cli.report.study_charts import Block
from rlhf_cli.report.table import number

HELD_OUT = "held-out prompts"
CONTROLLED = "_controlled"
PROXY = "reward model"  # the judge that the policies were trained to please
PER_INPUT, ACROSS_INPUT = "per_input", "across_input"
SERIES = {PER_INPUT: "several answers to one prompt", ACROSS_INPUT: "one answer per prompt"}
TABLED = ("gap",)  # differences of figures that have a chart
MANY = 48  # lines of a chart; more of them are a table
Named = Callable[[Mean], str]


@dataclass(slots=True, kw_only=True, frozen=True)
class Dots:
    """What a chart of dots shows. line, series: the names under which a figure stands.

    reference: a value to compare with, such as that of chance.
    """

    title: str
    caption: str
    line: Named
    series: Named
    reference: float | None = None


def part_blocks(part: str, means: Sequence[Mean], colours: Mapping[str, str]) -> list[Block]:
    """Return the charts of a part, and a table of the figures that no chart has."""
    families: dict[tuple, list[Mean]] = {}
    for one in means:
        if one.figure.part == part:
            families.setdefault(_family(one.figure), []).append(one)
    charts, left = [], []
    for family in families.values():
        if 1 < len(family) <= MANY and family[0].figure.measure not in TABLED:
            charts.append(dots_chart(_dots(part, family), family, colours))
        else:
            left += family
    return [*charts, *([figure_table(left)] if left else [])]


def _family(one: Figure) -> tuple:
    """Return what figures of one chart have in common."""
    if one.part == "win_rates":
        return (one.measure.removesuffix(CONTROLLED), one.judge, one.group)
    if one.part == "diversity" and one.measure.rpartition("/")[2] in SERIES:
        return (one.measure.rpartition("/")[0], one.judge, one.group)
    if one.part == "imitation":
        return (one.judge,)
    return (one.measure, one.judge)


def _dots(part: str, family: Sequence[Mean]) -> Dots:
    first = family[0].figure
    by_policy = Dots(
        title=_title(first),
        caption=caption_of(part, first.measure),
        line=lambda one: one.column,
        series=lambda one: one.column,
    )
    if part == "win_rates":
        judge = f"Preferred by: {first.judge or 'unknown'}"
        return replace(
            by_policy,
            title=f"{judge}, which was optimised" if first.judge == PROXY else judge,
            series=_prompts_and_control,
            reference=0.5,
        )
    if part == "diversity" and "/" in first.measure:
        return replace(
            by_policy,
            title=label_of_measure(first.measure.rpartition("/")[0]),
            series=lambda one: SERIES[one.figure.measure.rpartition("/")[2]],
        )
    if part == "imitation":
        return replace(by_policy, title="", series=lambda one: label_of_measure(one.figure.measure))
    if len({_where(one.figure) for one in family}) > 1:
        return replace(by_policy, line=lambda one: _where(one.figure) or "all")
    return by_policy


def _title(one: Figure) -> str:
    label = label_of_measure(one.measure)
    return f"{label[:1].upper()}{label[1:]}" + (f", by {one.judge}" if one.judge else "")


def _where(one: Figure) -> str:
    """Return the set of prompts and the group of a figure in words."""
    return ", ".join(name for name in (one.prompts, one.group) if name)


def _prompts_and_control(one: Mean) -> str:
    prompts = one.figure.prompts or HELD_OUT
    controlled = one.figure.measure.endswith(CONTROLLED)
    return f"{prompts}, lengths made equal" if controlled else prompts


def dots_chart(dots: Dots, family: Sequence[Mean], colours: Mapping[str, str]) -> Block:
    """Return a chart with a line per name, and a dot per series in it."""
    lines, series = (list(dict.fromkeys(map(name, family))) for name in (dots.line, dots.series))
    colour = {name: colours.get(name, f"c{i % 9 + 1}") for i, name in enumerate(series)}
    several = lines != series and len(series) > 1
    points = [
        {
            "line": lines.index(dots.line(one)),
            "colour": colour[dots.series(one)],
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "tip": "\n".join(
                dict.fromkeys(
                    [
                        dots.line(one),
                        dots.series(one),
                        *figure_cell(one.value, one.low, one.high),
                        *_counts(one),
                    ]
                )
            ),
        }
        for one in family
    ]
    numbers = [
        {
            "head": list(dict.fromkeys([dots.line(one), dots.series(one)])),
            "cells": [
                figure_cell(one.value, one.low, one.high),
                [f"{one.count:,}"],
                [str(one.runs)],
            ],
        }
        for one in family
    ]
    return {
        "kind": "dots",
        "title": dots.title,
        "caption": dots.caption,
        "legend": [{"name": n, "colour": colour[n]} for n in series] if several else [],
        "lines": lines,
        "reference": dots.reference,
        "points": points,
        "numbers": {
            "kind": "table",
            "title": "",
            "columns": [["figure"], ["observations"], ["runs"]],
            "rows": numbers,
        },
    }


def _counts(one: Mean) -> Iterator[str]:
    yield f"{one.count:,} observations"
    if one.runs > 1:
        yield f"mean of {one.runs} runs"


def figure_table(means: Sequence[Mean]) -> Block:
    """Return the table of figures: a row per measure, judge, prompts and group, a column per policy."""
    columns = list(dict.fromkeys(one.column for one in means))
    rows: dict[tuple[str, ...], dict[str, Mean]] = {}
    for one in means:
        about = ", ".join(word for word in (_where(one.figure), _by(one.figure)) if word)
        head = (label_of_measure(one.figure.measure), *([about] if about else []))
        rows.setdefault(head, {})[one.column] = one
    return {
        "kind": "table",
        "title": "",
        "columns": [heading_of(name) for name in columns],
        "rows": [
            {
                "head": list(head),
                "cells": [_cell_of(row.get(name)) for name in columns],
            }
            for head, row in rows.items()
        ],
    }


def _cell_of(one: Mean | None) -> list[str]:
    return ["-"] if one is None else figure_cell(one.value, one.low, one.high)


def _by(one: Figure) -> str:
    return f"by {one.judge}" if one.judge else ""


def figure_cell(value: float, low: float | None, high: float | None) -> list[str]:
    """Return a figure and, where there is one, its interval."""
    if low is None or high is None:
        return [f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"]
    width = high - low
    return [number(value, width), f"[{number(low, width)}, {number(high, width)}]"]

"""Which figures of results.json stand in one chart, part by part; the others are a table of the part.

A part or measure that this program does not know has a chart too, where it has several figures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rlhf_cli.artifacts.results import REFERENCE, Figure
from rlhf_cli.report.figure_charts import Dots, dots_chart, figure_table
from rlhf_cli.report.figure_words import caption_of, judge_words, label_of_measure, title_of
from rlhf_cli.report.run_groups import Mean
from rlhf_cli.report.study_charts import Block

MANY = 80  # figures of a chart; more of them are a table
LONG = 8  # rows of a table; a longer one is folded
HELD_OUT = "held-out prompts"
CONTROLLED, FROM_BASE = "_controlled", "_minus_base"
KINDS = {"per_input": "several answers to one prompt", "across_input": "one answer per prompt"}
SIDES = {"chosen": "preferred by people", "rejected": "rejected by people"}
LOWEST, HIGHEST = "q05", "q95"  # groups of the scores: quantiles, drawn as a band
QUANTILES = (LOWEST, "q25", "q50", "q75", HIGHEST)
TABLED = ("_gap", "/gap", "_std", "/p")  # ends of measures that need no chart of their own


def part_blocks(part: str, means: Sequence[Mean], colours: Mapping[str, str]) -> list[Block]:
    """Return the charts of a part, and a table of the figures that no chart has, folded if it is long."""
    own = [one for one in means if one.figure.part == part]
    families: dict[tuple, list[Mean]] = {}
    for one in own:
        if not _is_tabled(one.figure):
            families.setdefault(_family(one.figure), []).append(one)
    drawn = [some for some in families.values() if 1 < len(some) <= MANY]
    charts = [dots_chart(_dots(part, some, own), some, colours) for some in drawn]
    shown = {id(one) for some in drawn for one in some}
    left = [one for one in own if id(one) not in shown]
    if not left:
        return charts
    table = figure_table(left)
    folded = {"kind": "fold", "title": "more figures", "blocks": [table]}
    return [*charts, folded if len(table["rows"]) > LONG else table]


def _is_tabled(one: Figure) -> bool:
    return (
        one.measure.endswith(TABLED)
        or (one.part == "diversity" and "/" in one.measure and one.group is not None)
        or (one.part == "imitation" and not one.measure.endswith(FROM_BASE))
        or (one.part == "reward_model" and one.group in QUANTILES)
    )


def _family(one: Figure) -> tuple:
    """Return what figures of one chart have in common."""
    if one.part == "win_rates":
        return (one.measure.removesuffix(CONTROLLED), one.group, one.judge)
    if one.part == "diversity":
        return (one.measure.rpartition("/")[0] or one.measure,)
    if one.part == "probes":
        return ()
    if one.part == "imitation":
        return (one.measure,)
    return (one.measure, one.judge)


def _dots(part: str, family: Sequence[Mean], own: Sequence[Mean]) -> Dots:
    """Return what the chart of a family shows. own: all figures of the part."""
    first = family[0].figure
    plain = Dots(
        title=title_of(first),
        caption=caption_of(part, first.measure),
        line=lambda one: one.column,
        series=lambda one: one.column,
    )
    if part == "win_rates":
        over = "the data's responses" if first.group == REFERENCE else first.group or "SFT"
        title = f"Over {over}, by {judge_words(first.judge)}"
        return replace(plain, title=title, series=_prompts, reference=0.5)
    if part == "generalisation":
        return replace(plain, series=_prompts)
    if part == "diversity" and "/" in first.measure:
        kind, _, _ = first.measure.rpartition("/")
        return replace(plain, title=label_of_measure(kind), series=_kind)
    if part == "imitation":
        return replace(plain, series=lambda one: SIDES.get(one.figure.group or "", "all"))
    if part == "probes":
        return replace(plain, title="By kind of probe", line=_group, series=_judge, reference=0.5)
    if part == "reward_model" and first.measure == "score":
        bands = dict(_bands(own))
        return replace(plain, band=lambda one: bands.get((one.column, one.figure.judge)))
    return _by_place(plain, family)


def _by_place(plain: Dots, family: Sequence[Mean]) -> Dots:
    """Return a line per group and set of prompts where there are several, and a series per policy."""
    columns: dict[str, set[str]] = {}
    for one in family:
        columns.setdefault(place_of(one.figure), set()).add(one.column)
    if len(columns) == 1:
        return plain
    if all(len(some) == 1 for some in columns.values()):

        def line(one: Mean) -> str:
            return place_of(one.figure) or one.column

        return replace(plain, line=line, series=line)
    return replace(plain, line=lambda one: place_of(one.figure) or "all")


def place_of(one: Figure) -> str:
    """Return the set of prompts and the group of a figure in words; empty where it has neither."""
    return ", ".join(name for name in (one.prompts, one.group) if name)


def _prompts(one: Mean) -> str:
    prompts = one.figure.prompts or HELD_OUT
    controlled = one.figure.measure.endswith(CONTROLLED)
    return f"{prompts}, lengths made equal" if controlled else prompts


def _kind(one: Mean) -> str:
    kind = one.figure.measure.rpartition("/")[2]
    return KINDS.get(kind, kind.replace("_", " "))


def _group(one: Mean) -> str:
    return (one.figure.group or "all kinds").replace("_", " ")


def _judge(one: Mean) -> str:
    if one.figure.measure != "accuracy":
        return label_of_measure(one.figure.measure)
    return judge_words(one.figure.judge)


def _bands(own: Sequence[Mean]) -> Iterator[tuple[tuple[str, str | None], tuple[float, float]]]:
    """Yield ((column, judge), the 5 % and the 95 % quantile) of the scores that have both."""
    found: dict[tuple[str, str | None], dict[str | None, float]] = {}
    for one in own:
        if one.figure.measure == "score":
            found.setdefault((one.column, one.figure.judge), {})[one.figure.group] = one.value
    for key, values in found.items():
        if LOWEST in values and HIGHEST in values:
            yield key, (values[LOWEST], values[HIGHEST])

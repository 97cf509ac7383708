"""The page of `rlhf show A B`, and the end of a sweep: runs side by side."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from rlhf_cli.report.compare import Column, Comparison
from rlhf_cli.report.table import Interval, number
from rlhf_cli.telemetry.console import console, line, name_of
from rlhf_cli.telemetry.progress import short

LEFT_OUT = "figures that are the same in all of them are left out"
SAME = "the closing figures are the same"
T = TypeVar("T")
Key = tuple[str, str]  # (stage or policy, figure)
# Columns of the screen: for the name of a figure; for a run with the interval under the mean, beside it
LABEL, COLUMN, ONE_LINE = 22, 18, 24


def print_comparison(found: Comparison) -> None:
    """The differences, then the figures, as many runs beside each other as the screen is wide."""
    if found.differences:
        _print_differences("what differs", found.names, found.differences)
    else:
        line("configuration and data are the same", style="bold")
    figures = told_apart(found.columns)
    for some in _blocks(found.columns) if figures else ():
        console().print(_figure_table(some, figures, one_line=len(some) <= _room(ONE_LINE)))
    if len(found.columns) > 1:
        line(f"  {LEFT_OUT if figures else SAME}", style="dim")
    if figures:
        line("  [low, high]: 95 % interval, where there is one", style="dim")
    if any(column.num_runs > 1 for column in found.columns):
        line("  ±: standard deviation over runs that differ in the seed alone", style="dim")


def told_apart(columns: Sequence[Column]) -> list[Key]:
    """Return the figures in which the columns differ; of one column all of them."""
    keys = dict.fromkeys(key for column in columns for key in column.figures)
    return [key for key in keys if len(columns) == 1 or not _same(columns, key)]


def _same(columns: Sequence[Column], key: Key) -> bool:
    return all(column.figures.get(key) == columns[0].figures.get(key) for column in columns)


def _print_differences(
    title: str, names: Sequence[str], values: Mapping[str, Sequence[str]]
) -> None:
    """A table with a row a key and a column a run, in several blocks where it is too wide."""
    for some in _blocks(list(enumerate(names))):
        table = _table(title)
        for _, name in some:
            table.add_column(name_of(name), overflow="fold")
        for key, found in values.items():
            table.add_row(name_of(key), *(name_of(found[place]) for place, _ in some))
        console().print(table)


def _blocks(columns: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many columns at a time as the screen holds."""
    room = _room(COLUMN)
    for first in range(0, len(columns), room):
        yield columns[first : first + room]


def _room(width: int) -> int:
    return max(1, (console().width - LABEL) // width)


def _table(title: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1 if console().width >= 100 else 0),
    )
    table.add_column("", overflow="fold")
    return table


def _figure_table(columns: Sequence[Column], figures: Sequence[Key], *, one_line: bool) -> Table:
    """A section for each stage and each policy."""
    table = _table("closing figures")
    for column in columns:
        table.add_column(name_of(column.name), justify="right", overflow="fold")
    group = ""
    for key in figures:
        if key[0] != group:
            group = key[0]
            table.add_row(name_of(group, "bold"))
        cells = [
            _cell(column.figures.get(key, []), " " if one_line else "\n") for column in columns
        ]
        table.add_row(name_of(f"  {key[1]}"), *cells)
    return table


def _cell(values: Sequence[Interval], gap: str) -> Text:
    """The mean and its interval; of several runs their mean and standard deviation."""
    if not values:
        return Text("-", style="dim")
    if len(values) > 1:
        means = [value[0] for value in values]
        spread = stdev(means)
        return Text.assemble(
            _number(mean(means), spread), (f"{gap}± {_number(spread, spread)}", "dim")
        )
    centre, low, high = values[0]
    width = high - low
    if width == 0:
        return Text(short(centre))
    interval = f"{gap}[{number(low, width)}, {number(high, width)}]"
    return Text.assemble(number(centre, width), (interval, "dim"))


def _number(value: float, spread: float) -> str:
    return short(value) if spread == 0 else number(value, 2 * spread)

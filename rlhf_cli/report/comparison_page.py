"""The page of `rlhf show A B`, and the end of a sweep: runs side by side."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from string import ascii_uppercase

from rich.table import Table
from rich.text import Text

from rlhf_cli.config.printable import one_line
from rlhf_cli.report.compare import Column, Key, differences, differing_figures
from rlhf_cli.report.table import Interval, framed, number
from rlhf_cli.telemetry.console import fits, line, plain_name, print_blocks
from rlhf_cli.telemetry.progress import short

LONG_NAME, LONG_VALUE = 16, 32  # columns of the screen: letters stand for longer names; wrapped


def print_comparison(columns: Sequence[Column]) -> None:
    """Print what differs, then the figures, as many runs side by side as the screen is wide."""
    names = _labels(columns)
    apart = differences(columns)
    if apart:
        _print_differences(names, apart)
    else:
        line(f"configuration and data are the same{_seeds(columns)}", style="bold")
    figures = differing_figures(columns)
    if figures:
        _print_figures(list(zip(names, columns, strict=True)), figures)
    for note in _notes(columns, figures):
        line(f"  {note}", style="dim")


def _seeds(columns: Sequence[Column]) -> str:
    several = len(columns) == 1 and columns[0].num_runs > 1
    return f" but for the seed ({columns[0].settings['seed']})" if several else ""


def _notes(columns: Sequence[Column], figures: Sequence[Key]) -> Iterator[str]:
    if not figures:
        yield "no closing figure differs"
        return
    if len(columns) > 1:
        yield "left out: figures that are the same, or in one run alone"
    yield "[low, high]: 95 % interval, where there is one"
    if any(column.num_runs > 1 for column in columns):
        yield "± standard deviation over the runs that differ in the seed alone"


def _labels(columns: Sequence[Column]) -> list[str]:
    """Return the names of the runs, or letters that stand for long ones."""
    names = [one_line(column.name) for column in columns]
    if max(map(len, names)) <= LONG_NAME:
        return names
    letters = [ascii_uppercase[i % 26] + str(i // 26 or "") for i in range(len(names))]
    for letter, name in zip(letters, names, strict=True):
        line(f"{letter}  {name}", whole=True)
    return letters


def _print_differences(names: Sequence[str], values: Mapping[str, Sequence[str]]) -> None:
    def table_of(some: Sequence[tuple[int, str]]) -> Table:
        table = framed("what differs")
        for _, name in some:
            table.add_column(name, overflow="fold", max_width=LONG_VALUE)
        for key, found in values.items():
            table.add_row(plain_name(key), *(plain_name(found[place]) for place, _ in some))
        return table

    print_blocks(list(enumerate(names)), table_of)


def _print_figures(columns: Sequence[tuple[str, Column]], figures: Sequence[Key]) -> None:
    """Print the figures, the interval beside its mean where there is room, else under it."""
    beside = fits(_figure_table(columns, figures, gap=" "))
    print_blocks(columns, lambda some: _figure_table(some, figures, gap=" " if beside else "\n"))


def _figure_table(
    columns: Sequence[tuple[str, Column]], figures: Sequence[Key], *, gap: str
) -> Table:
    """Return a table with a section per stage and policy. gap: between a mean and its interval."""
    table = framed("closing figures")
    for name, _ in columns:
        table.add_column(name, justify="right")
    groups = dict.fromkeys(group for group, _ in figures)
    for group in groups:
        table.add_row(plain_name(group, "bold"))
        for key in (key for key in figures if key[0] == group):
            cells = [_cell(column.figures.get(key, []), gap) for _, column in columns]
            table.add_row(plain_name(f"  {key[1]}"), *cells)
    return table


def _cell(values: Sequence[Interval], gap: str) -> Text:
    """Return the mean and its interval; of several runs their mean and standard deviation."""
    if not values:
        return Text("-", style="dim")
    if len(values) > 1:
        means = [value[0] for value in values]
        spread = stdev(means)
        shown = f"{gap}± {number(spread, 2 * spread)}"
        return Text.assemble(number(mean(means), 2 * spread), (shown, "dim"))
    centre, low, high = values[0]
    width = high - low
    if width == 0:
        return Text(short(centre))
    interval = f"{gap}[{number(low, width)}, {number(high, width)}]"
    return Text.assemble(number(centre, width), (interval, "dim"))

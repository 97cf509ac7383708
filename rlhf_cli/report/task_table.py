"""The closing tables of tasks: a row per model and way to ask; means over tasks, then every task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import Any

from rich.table import Table
from rich.text import Text

from rlhf_cli.report.table import (
    estimate_cell,
    framed,
    number,
    print_notes,
    read_content,
    write_content,
)
from rlhf_cli.telemetry.console import plain_name, print_blocks

TASKS = "tasks.json"
NAME = 18  # characters of a task's name on one line
ASKED = {"direct": "direct", "chain": "CoT", "votes": "CoT + SC"}
CELLS = "mean over templates ± standard deviation [95 % interval over rows]"
MEANS = "means: [95 % interval over rows, from those of the tasks]"
CHAINS = "CoT: chain of thought; SC: self-consistency, what most samples answer"
VOTES = "maj@n: votes of n samples, in blocks that do not overlap"
NEAR_CHANCE = "~: the interval holds what a random option would reach"
Row = Mapping[str, Any]


def write_tasks(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the figures of the tasks into the folder of their stage."""
    write_content(folder / TASKS, content)


def read_task_figures(folder: Path) -> dict[str, Any] | None:
    """Return the figures kept in a stage folder, checked; None when there are none."""
    return read_content(folder / TASKS, "evaluate", _checked)


def _checked(content: Any) -> dict[str, Any]:
    for row in content["rows"]:
        _ = _way(row), row["model"], _mean_cells(row)
        _ = [_cell(found) for found in row["tasks"].values()]
    _ = content["title"], [str(note) for note in content["notes"]]
    return content


def print_tasks(folder: Path) -> None:
    """Print the tables of tasks kept in a stage folder; nothing when there are none."""
    if content := read_task_figures(folder):
        rows = content["rows"]
        names, tasks = headings_of(rows)
        title = str(content["title"])
        print_blocks(names, lambda some: means_table(rows, some, title=f"Means: {title}"))
        print_blocks(tasks, lambda some: tasks_table(rows, some, title=title))
        print_notes([*legend_of(rows), *content["notes"]])


def headings_of(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the headings of all means of the rows, and the names of all their tasks."""
    means = dict.fromkeys(name for row in rows for name in means_of(row))
    return list(means), list(dict.fromkeys(name for row in rows for name in row["tasks"]))


def legend_of(rows: Sequence[Row]) -> list[str]:
    """Return what the signs in these tables mean."""
    asked = {row["asked"] for row in rows}
    near = any(found["near_chance"] for row in rows for found in row["tasks"].values())
    bounded = any("intervals" in row for row in rows)
    needed = {
        CELLS: True,
        MEANS: bounded,
        NEAR_CHANCE: near,
        CHAINS: len(asked) > 1,
        VOTES: "votes" in asked,
    }
    return [note for note, is_needed in needed.items() if is_needed]


def means_of(row: Row) -> dict[str, float]:
    """Return {heading: mean} of a row: over clusters, groups, all tasks; where there is something to mean.

    Of the tasks with options by each way to rank, and of those that were voted on by number of votes.
    """
    found = _headed(row)
    figures = list(row["tasks"].values())
    unreadable = fmean(one["unreadable"] for one in figures)
    if unreadable > 0 or row["asked"] != "direct":
        found["un-\nreadable"] = unreadable
    for key, heading in (("ranks", "rank\n{}"), ("votes", "votes\nmaj@{}")):
        some = [one[key] for one in figures if one[key]]
        for name in some[0] if some else ():
            found[heading.format(name)] = fmean(one[name] for one in some)
    return found


def _headed(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return {heading: what is found} of the mean over clusters, of each of several, and of each group."""
    headed = {"mean\nof clusters": found["macro"]}
    if len(found["clusters"]) > 1:
        headed |= {f"{name}\ncluster": value for name, value in found["clusters"].items()}
    return headed | {f"{name}\ngroup": value for name, value in found["groups"].items()}


def _mean_cells(row: Row) -> dict[str, Text]:
    """Return {heading: mean}, under it its interval where the file has one."""
    means = means_of(row)
    cells = {heading: Text(f"{mean:.2f}") for heading, mean in means.items()}
    for heading, (low, high) in _headed(row["intervals"]).items() if "intervals" in row else ():
        cells[heading] = estimate_cell((means[heading], low, high))
    return cells


def means_table(rows: Sequence[Row], headings: Sequence[str], *, title: str) -> Table:
    """Return the table of these means, one line per row."""
    table = framed(plain_name(title))
    for heading in headings:
        table.add_column(_heading(heading.split("\n")), justify="right", no_wrap=True)
    for row, last in _with_ends(rows):
        cells = _mean_cells(row)
        label = Text.assemble(plain_name(f"{row['model']} "), (_way(row), "dim"))
        table.add_row(
            label, *(cells.get(h) or Text("-", "dim") for h in headings), end_section=last
        )
    return table


def tasks_table(rows: Sequence[Row], tasks: Sequence[str], *, title: str) -> Table:
    """Return the table of these tasks: the mean, its spread over templates, and under it the interval."""
    table = framed(plain_name(title))
    for name in tasks:
        table.add_column(heading_of(name), justify="right", no_wrap=True)
    for row, last in _with_ends(rows):
        label = Text.assemble(plain_name(row["model"]), (f"\n{_way(row)}", "dim"))
        found = (row["tasks"].get(name) for name in tasks)
        cells = (Text("-", "dim") if one is None else _cell(one) for one in found)
        table.add_row(label, *cells, end_section=last)
    return table


def heading_of(task: str) -> Text:
    """Return the name of a task in lines that are not too long."""
    words = wrap(task.replace("_", "_ "), NAME, break_on_hyphens=False)
    return _heading([part.replace("_ ", "_") for part in words])


def _heading(lines: Sequence[str]) -> Text:
    return Text("\n").join(plain_name(part) for part in lines)


def _with_ends(rows: Sequence[Row]) -> list[tuple[Row, bool]]:
    """Return every row, and whether it is the last one of its model."""
    models = [row["model"] for row in rows]
    return [
        (row, model != following)
        for row, model, following in zip(rows, models, [*models[1:], None], strict=True)
    ]


def _way(row: Row) -> str:
    return f"{row['shots']}-shot {ASKED[row['asked']]}"


def _cell(found: Mapping[str, Any]) -> Text:
    """Return 0.83 ±0.02, under it [0.79, 0.87]; a ~ before what may be chance."""
    value, low, high = float(found["value"]), float(found["low"]), float(found["high"])
    spread, mark = found["template_std"], "~" if found["near_chance"] else ""
    return Text.assemble(
        mark + number(value, high - low),
        ("" if spread is None else f" ±{float(spread):.2f}", "dim"),
        (f"\n[{number(low, high - low)}, {number(high, high - low)}]", "dim"),
    )

"""The closing table of rationales: what is left after each check, over all tasks and in each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rlhf_cli.report.table import framed, print_notes, read_content, write_content
from rlhf_cli.report.task_table import heading_of
from rlhf_cli.telemetry.console import plain_name, print_blocks

FIGURES = "figures.json"
ALL = "all tasks"
LABELS = {
    "generated": "generated",
    "answer": "contain the answer",
    "length": "short enough",
    "ending": "end a sentence",
    "duplicate": "no duplicate",
    "likelihood": "answer likelier",
    "best": "best of its row",
}
LEGEND = (
    "rationales left after each check, of so many rows; mean g of complete ones",
    "g = log P(answer | question, rationale) - log P(answer | question) in nats,",
    "without sentences that contain the answer; in brackets with them",
)
RIGHT = (
    "right: share with right steps alone (share of their steps that are right)",
    "dropped: the same of what the check dropped",
)
Step = Mapping[str, Any]


def write_rationale_figures(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the figures into the folder of their stage."""
    write_content(folder / FIGURES, content)


def read_rationale_figures(folder: Path) -> dict[str, Any] | None:
    """Return the figures kept in a stage folder, checked; None when there are none."""
    return read_content(folder / FIGURES, "rationales", _checked)


def _checked(content: Any) -> dict[str, Any]:
    for steps in (content["all"], *content["tasks"].values()):
        _ = [(str(step["step"]), _cell(step)) for step in steps]
    _ = content["title"], [str(note) for note in content["notes"]]
    return content


def print_rationales(folder: Path) -> None:
    """Print the table kept in a stage folder; nothing when there is none."""
    if content := read_rationale_figures(folder):
        columns = {ALL: content["all"]} if len(content["tasks"]) > 1 else {}
        columns |= content["tasks"]
        print_blocks(
            list(columns),
            lambda some: steps_table({n: columns[n] for n in some}, title=str(content["title"])),
        )
        known = any(step["right"]["steps"] is not None for step in content["all"])
        print_notes((*LEGEND, *(RIGHT if known else ()), *content["notes"]))


def steps_table(columns: Mapping[str, Sequence[Step]], *, title: str) -> Table:
    """Return the table with a line per check and a column per task."""
    table = framed(plain_name(title))
    for name in columns:
        table.add_column(heading_of(name), justify="right", no_wrap=True)
    for steps in zip(*columns.values(), strict=True):
        name = steps[0]["step"]
        table.add_row(plain_name(LABELS.get(name, name)), *map(_cell, steps))
    return table


def _cell(step: Step) -> Text:
    """Return 123 of 40 rows, under it the mean gains, and shares of right ones where they are known."""
    pairs = {
        "g": (step["gain"], step["gain_stated"]),
        "right": (step["right"]["rationales"], step["right"]["steps"]),
        "dropped": (step["dropped_right"]["rationales"], step["dropped_right"]["steps"]),
    }
    shown = [
        f"\n{name} {float(one):.2f} ({float(other):.2f})"
        for name, (one, other) in pairs.items()
        if one is not None and other is not None
    ]
    num, rows = int(step["rationales"]), int(step["rows"])
    return Text.assemble(f"{num}", (f" of {rows} rows", "dim"), ("".join(shown), "dim"))

"""The closing table of rationales: what is left after each check, over all tasks and in each."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.printable import one_line
from rlhf_cli.report.task_table import heading_of
from rlhf_cli.telemetry.console import console, line, plain_name, print_blocks

FIGURES = "figures.json"
WIDE = 100  # columns of the screen from which there is air between the columns
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
    (folder / FIGURES).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_rationale_figures(folder: Path) -> dict[str, Any] | None:
    """Return the figures kept in a stage folder, checked; None when there are none."""
    path = folder / FIGURES
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for steps in (content["all"], *content["tasks"].values()):
            _ = [(str(step["step"]), _cell(step)) for step in steps]
        _ = content["title"], [str(note) for note in content["notes"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no table of this program: run the stage rationales again"
        ) from error
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
        for note in (*LEGEND, *(RIGHT if known else ()), *content["notes"]):
            line(f"  {one_line(str(note))}", style="dim")


def steps_table(columns: Mapping[str, Sequence[Step]], *, title: str) -> Table:
    """Return the table with a line per check and a column per task."""
    table = Table(
        title=plain_name(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1 if console().width >= WIDE else 0),
    )
    table.add_column("", no_wrap=True)
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

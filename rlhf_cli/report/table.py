"""The closing table: one column per policy, one row per metric, each number with its 95 % interval."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.printable import one_line
from rlhf_cli.data.embedded import measure_labels
from rlhf_cli.telemetry.console import console, line, plain_name, print_blocks

TABLE = "table.json"
WIDE = 100  # columns of the screen from which there is space between the columns
Interval = tuple[float, float, float]
Rows = Mapping[str, Mapping[str, Interval | None]]

LABELS = {
    "score": "score",
    "win_rate": "wins by score",
    "length": "tokens",
    "eos_rate": "ends with EOS",
    "kl": "KL to SFT",
}
COSTS = {
    "sampled_responses": "responses sampled",
    "sampled_tokens": "tokens sampled",
    "trained_tokens": "tokens trained on",
    "scored_responses": "responses scored",
    "seconds": "seconds",
}


def write_content(path: Path, content: Mapping[str, Any]) -> None:
    """Write what is kept of a table."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def read_content(
    path: Path, stage: str, checked: Callable[[Any], dict[str, Any]]
) -> dict[str, Any] | None:
    """Return what is kept of a table, as `checked` returns it; None when there is no such file.

    stage: which wrote it. UserError where `checked` cannot read the content.
    """
    if not path.is_file():
        return None
    try:
        return checked(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no table of this program: run the stage {stage} again"
        ) from error


def write_table(folder: Path, rows: Rows, *, title: str, notes: Sequence[str] = ()) -> None:
    """Write the table into the folder of its stage. rows: policy -> metric -> (mean, low, high)."""
    plain = {name: dict(row) for name, row in rows.items()}
    content = {"title": title, "rows": plain, "notes": list(notes)}
    write_content(folder / TABLE, content)


def read_table(folder: Path) -> dict[str, Any] | None:
    """Return title, rows and notes of the table kept in a stage folder; None when there is none."""
    return read_content(folder / TABLE, "evaluate", _checked)


def _checked(content: Any) -> dict[str, Any]:
    rows = {
        str(policy): {str(metric): _interval(found) for metric, found in row.items()}
        for policy, row in content["rows"].items()
    }
    notes = [str(note) for note in content["notes"]]
    return {"title": str(content["title"]), "rows": rows, "notes": notes}


def _interval(found: Any) -> Interval | None:
    if found is None:
        return None
    mean, low, high = map(float, found)
    return mean, low, high


def print_table(folder: Path) -> None:
    """Print the table kept in a stage folder; nothing when there is none."""
    if content := read_table(folder):
        rows = content["rows"]
        print_blocks(
            list(rows),
            lambda some: closing_table({n: rows[n] for n in some}, title=content["title"]),
        )
        print_notes(content["notes"])


def print_notes(notes: Iterable[object]) -> None:
    """Print the lines below a table."""
    for note in notes:
        line(f"  {one_line(str(note))}", style="dim")


def framed(title: str | Text, *, first: str = "", wide: int = WIDE) -> Table:
    """Return a table with its first column. wide: columns of the screen from which there is more space."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1 if console().width >= wide else 0),
    )
    table.add_column(first, no_wrap=True)
    return table


def label_of(metric: str) -> str:
    """Return the name of a metric in tables, which may be one of an embedded task."""
    judge = metric.removeprefix("win_rate/")
    if judge != metric:
        return f"wins by {judge}"
    return (measure_labels() | LABELS | COSTS).get(metric, metric)


def closing_table(rows: Rows, *, title: str) -> Table:
    """Return the table of rows: policy -> metric -> (mean, low, high) or None; empty metrics omitted.

    Four policies fit 80 columns: the interval stands under its mean.
    """
    table = framed(plain_name(title))
    for name in rows:
        table.add_column(plain_name(name), justify="right", no_wrap=True)
    for metric in dict.fromkeys(metric for row in rows.values() for metric in row):
        cells = [row.get(metric) for row in rows.values()]
        if any(cell is not None for cell in cells):
            show = cost_cell if metric in COSTS else estimate_cell
            table.add_row(plain_name(label_of(metric)), *map(show, cells))
    return table


def estimate_cell(estimate: Interval | None) -> Text:
    """Return 0.83, and under it [0.79, 0.87]; a number without an interval stands alone."""
    if estimate is None:
        return Text("-", style="dim")
    mean, low, high = estimate
    width = high - low
    if width == 0:
        return Text(number(mean, mean))
    interval = f"\n[{number(low, width)}, {number(high, width)}]"
    return Text.assemble(number(mean, width), (interval, "dim"))


def cost_cell(cost: Interval | None) -> Text:
    """Return 4,096: counts are whole; seconds have a decimal below 10."""
    if cost is None:
        return Text("-", style="dim")
    value = cost[0]
    return Text(f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}")


def number(value: float, scale: float) -> str:
    """Return as many decimals as the width of the interval deserves, at most three."""
    decimals = 1 if abs(scale) >= 2 else 2 if abs(scale) >= 0.02 else 3
    return f"{value:.{decimals}f}"

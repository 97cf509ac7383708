"""What the page of `rlhf report` shows, as JSON values: sections of facts, tables and charts.

The tables are those of `rlhf show`, cell by cell.
"""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from rlhf_cli.artifacts.lock import last_command
from rlhf_cli.report.compare import names_of
from rlhf_cli.report.run_state import RunState
from rlhf_cli.report.show import made_by
from rlhf_cli.report.study_charts import Block, Found, charts_of
from rlhf_cli.report.table import closing_table
from rlhf_cli.report.task_table import headings_of, legend_of, means_table, tasks_table

MINUTES = len("2026-01-31 12:59")


def content_of(runs: Sequence[RunState], study: Found) -> dict[str, Any]:
    """Return title and sections. study: the figures of the charts (task_study).

    The tables of one run are open; of several runs they are folded, each run's under its name.
    """
    charts = {"title": "Instruction tuning", "folded": False, "blocks": charts_of(study)}
    if len(runs) == 1:
        title, (run,) = runs[0].name, runs
        sections = [
            {"title": "", "folded": False, "blocks": [_facts(run)]},
            {"title": "Closing table", "folded": False, "blocks": _closing(run)},
            charts,
            {"title": "Tasks", "folded": False, "blocks": _tasks(run)},
        ]
    else:
        title = f"{len(runs)} runs"
        folded = [
            {"title": name, "folded": True, "blocks": [_facts(run), *_closing(run), *_tasks(run)]}
            for name, run in zip(names_of(runs), runs, strict=True)
        ]
        sections = [charts, {"title": "Each run", "folded": False, "blocks": []}, *folded]
    return {"title": title, "sections": [one for one in sections if one["blocks"]]}


def _facts(run: RunState) -> Block:
    """Return the command of a run and what its evaluation was made by."""
    made = run.manifests["evaluate"]
    command = last_command(run.folder)
    facts = {
        "command": command,
        "stages": ", ".join(run.manifests),
        "finished": made.finished[:MINUTES],
        "seed": str(made.seed),
        "made by": f"rlhf {made_by(made)}",
        "problems": "\n".join(run.problems),
    }
    rows = [
        {"name": name, "text": text, "code": name == "command"}
        for name, text in facts.items()
        if text
    ]
    return {"kind": "facts", "rows": rows}


def _closing(run: RunState) -> list[Block]:
    if run.table is None:
        return []
    table = closing_table(run.table["rows"], title=run.table["title"])
    return [page_table(table), {"kind": "notes", "lines": run.table["notes"]}]


def _tasks(run: RunState) -> list[Block]:
    """Return the means and the tasks, one per line, with a column per model and way to ask."""
    if run.tasks is None:
        return []
    rows, title = run.tasks["rows"], str(run.tasks["title"])
    means, tasks = headings_of(rows)
    return [
        page_table(means_table(rows, means, title=f"Means: {title}"), joined_by=" "),
        page_table(tasks_table(rows, tasks, title=title), joined_by=""),
        {"kind": "notes", "lines": [*legend_of(rows), *map(str, run.tasks["notes"])]},
    ]


def page_table(table: Table, *, joined_by: str | None = None) -> Block:
    """Return a table of the terminal as JSON: of each cell its lines.

    joined_by: columns become rows, with the lines of their headings as one.
    """
    lines = [[_lines(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    if joined_by is None:
        (_, *columns), *rows = (list(row) for row in zip(*lines, strict=True))
    else:
        (_, *columns), *rows = lines
        rows = [[[joined_by.join(head).replace("- ", "")], *cells] for head, *cells in rows]
    return {
        "kind": "table",
        "title": " ".join(_lines(table.title)),
        "columns": columns,
        "rows": [{"head": head, "cells": cells} for head, *cells in rows],
    }


def _lines(cell: Any) -> list[str]:
    return (cell.plain if isinstance(cell, Text) else str(cell or "")).split("\n")

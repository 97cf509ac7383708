"""What the page of runs shows, as JSON values: sections in their order, each of blocks that page.js draws.

What a run does not have leaves no heading. The tables of the evaluation are those of `rlhf show`, cell by
cell.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from rlhf_cli.report.answer_browser import answers_block
from rlhf_cli.report.compare import names_of
from rlhf_cli.report.figure_parts import part_blocks
from rlhf_cli.report.figure_words import (
    DIVERSITY,
    GENERALISATION,
    WIN_RATES,
    Section,
    other_sections,
)
from rlhf_cli.report.learning_curves import learning_curves
from rlhf_cli.report.lm_eval_table import harness_blocks
from rlhf_cli.report.quality_charts import distance_charts, length_charts
from rlhf_cli.report.reward_charts import reward_blocks
from rlhf_cli.report.run_files import RunFiles
from rlhf_cli.report.run_groups import (
    Group,
    closing_rows,
    colours_of,
    grouped,
    heading_of,
    means_of,
)
from rlhf_cli.report.run_tables import cost_table, lineage_blocks
from rlhf_cli.report.run_verdicts import verdict_blocks
from rlhf_cli.report.show import MINUTES, made_by
from rlhf_cli.report.study_charts import Block, Found, charts_of
from rlhf_cli.report.table import closing_table
from rlhf_cli.report.task_table import headings_of, legend_of, means_table, tasks_table

VERDICT = (
    "Whether each policy has become better, or has only raised the score that it was trained on. "
    "Gained: a judge that it was not trained on prefers its answers too. Hacked: the score rose and "
    "the answers did not improve. Unclear: what was measured does not decide."
)
COSTS = "What each stage took, without the loading of libraries, models and data."
CLOSING = (
    "Answers of each policy to the same held-out prompts, which no stage was trained on. Score: by the "
    "reward model that the policies were trained on, so that a high one alone proves nothing."
)
OVER_SEEDS = (
    "runs that differ in the seed: mean [95 % interval over seeds], instead of that over prompts"
)
SEEDS = "Means over seeds, with Student's 95\N{NO-BREAK SPACE}% intervals over seeds."
CURVES = (
    "How each stage learned, step by step. Of long stages each point is a mean over several steps."
)
DISTANCE = (
    "Training by a score moves a policy away from the SFT model. As long as the true quality of its "
    "answers, or the score of a second reward model, rises with the score, the score can be trusted; "
    "where they part, it is exploited. Best-of-n, the answer with the highest score out of n, is what "
    "can be had at a distance without training."
)
LENGTH = (
    "Each dot is an answer. A line that rises more steeply than that of SFT means that length is "
    "rewarded, or that the policy has learned to write more for a higher score."
)
HARNESS = (
    "Published tasks, measured by `rlhf lm-eval`. Higher is better where nothing else stands beside the "
    "metric. Differences of less than about two standard errors may be chance; figures of other models "
    "compare only where the task's version, the shots and the chat template are the same."
)
ANSWERS = (
    "Every answer to every prompt that was evaluated, as the models wrote it. In brackets: the score "
    "minus that of SFT's answer. Judge: the value that it gives to the answer."
)
LINEAGE = (
    "What every stage was made of. Equal hashes mean equal content; manifest.json in the folder of "
    "a stage has them at full length."
)


def content_of(runs: Sequence[RunFiles], study: Found) -> dict[str, Any]:
    """Return title and sections. study: the figures of instruction tuning (task_study)."""
    groups = grouped(runs)
    names = names_of([run.state for run in runs])
    sections = [one for one in _sections(groups, runs, study) if one["blocks"]]
    return {
        "title": names[0] if len(runs) == 1 else f"{len(runs)} runs",
        "about": _about(groups, runs),
        "problems": list(dict.fromkeys(problem for run in runs for problem in run.problems)),
        "sections": sections,
    }


def _about(groups: Sequence[Group], runs: Sequence[RunFiles]) -> list[str]:
    """Return the lines below the title: when and by what a run was made; what several have in common."""
    if len(runs) == 1:
        last = max(runs[0].state.manifests.values(), key=lambda one: one.finished)
        return [f"finished {last.finished[:MINUTES]} · seed {runs[0].seed} · rlhf {made_by(last)}"]
    names = ", ".join(names_of([run.state for run in runs]))
    several = [group for group in groups if len(group.runs) > 1]
    if len(groups) == 1:
        return [names, f"They differ in the seed only. {SEEDS}"]
    return [names, *(f"{group.name}: they differ in the seed only. {SEEDS}" for group in several)]


def _sections(
    groups: Sequence[Group], runs: Sequence[RunFiles], study: Found
) -> Iterator[dict[str, Any]]:
    colours, means = colours_of(groups), means_of(groups)

    def figures(section: Section) -> dict[str, Any]:
        blocks = [one for part in section.parts for one in part_blocks(part, means, colours)]
        return _section(section.title, blocks, section.note)

    costs, answers = cost_table(groups), answers_block(groups, colours)
    yield _section("Verdict", verdict_blocks(runs), VERDICT)
    yield _section("Stages and their cost", [costs] if costs else [], COSTS)
    yield _section("Closing table", _closing(groups), CLOSING)
    yield _section("Learning curves", learning_curves(groups, colours), CURVES)
    yield _section(
        "Score and quality by distance from SFT", distance_charts(groups, colours), DISTANCE
    )
    yield figures(WIN_RATES)
    yield figures(GENERALISATION)
    yield figures(DIVERSITY)
    yield _section("Score against length", length_charts(groups, colours), LENGTH)
    yield _section("The reward model on held-out comparisons", *reward_blocks(groups))
    yield from map(figures, other_sections(dict.fromkeys(one.figure.part for one in means)))
    yield _section("Instruction tuning", charts_of(study))
    yield _section("Tasks", _tasks(runs))
    yield _section("lm-evaluation-harness", harness_blocks(groups), HARNESS)
    yield _section("Answers", [answers] if answers else [], ANSWERS)
    yield _section("Lineage", _lineage(runs), LINEAGE)


def _section(title: str, blocks: Sequence[Block], note: str = "") -> dict[str, Any]:
    return {"title": title, "note": note, "blocks": list(blocks)}


def _closing(groups: Sequence[Group]) -> list[Block]:
    tables = [t for group in groups for run in group.runs if (t := run.state.table) is not None]
    if not tables:
        return []
    titles = dict.fromkeys(str(table["title"]) for table in tables)
    notes = dict.fromkeys(note for table in tables for note in table["notes"])
    seeds = [OVER_SEEDS] if any(len(group.runs) > 1 for group in groups) else []
    rows = closing_rows(groups)
    table = page_table(closing_table(rows, title="; ".join(titles)))
    table["columns"] = [heading_of(column) for column in rows]
    return [table, {"kind": "notes", "lines": [*seeds, *notes]}]


def _tasks(runs: Sequence[RunFiles]) -> list[Block]:
    """Return the tables of the tasks of a run; of several runs each one's, folded."""
    if len(runs) == 1:
        return _tasks_of(runs[0])
    names = names_of([run.state for run in runs])
    return [
        {"kind": "fold", "title": name, "blocks": blocks}
        for name, run in zip(names, runs, strict=True)
        if (blocks := _tasks_of(run))
    ]


def _tasks_of(run: RunFiles) -> list[Block]:
    """Return the means and the tasks, one per line, with a column per model and way to ask."""
    found = run.state.tasks
    if found is None:
        return []
    rows, title = found["rows"], str(found["title"])
    means, tasks = headings_of(rows)
    return [
        page_table(means_table(rows, means, title=f"Means: {title}"), joined_by=" "),
        page_table(tasks_table(rows, tasks, title=title), joined_by=""),
        {"kind": "notes", "lines": [*legend_of(rows), *map(str, found["notes"])]},
    ]


def _lineage(runs: Sequence[RunFiles]) -> list[Block]:
    if len(runs) == 1:
        return lineage_blocks(runs[0])
    names = names_of([run.state for run in runs])
    return [
        {"kind": "fold", "title": name, "blocks": lineage_blocks(run)}
        for name, run in zip(names, runs, strict=True)
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

"""Figures of the lm-evaluation-harness: the table after `rlhf lm-eval`, and that of the page."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from rlhf_cli.artifacts.layout import BEST
from rlhf_cli.artifacts.lm_eval import (
    BASE,
    ModelScores,
    TaskScore,
    added,
    read_scores,
    write_scores,
)
from rlhf_cli.config.printable import one_line
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.evaluation.lm_request import LmEvalRequest
from rlhf_cli.report.run_files import RunFiles
from rlhf_cli.report.run_groups import Group, heading_of, over_seeds
from rlhf_cli.report.run_state import RunState
from rlhf_cli.report.study_charts import Block
from rlhf_cli.report.table import framed, print_notes
from rlhf_cli.telemetry.console import console, line, plain_name

MEANING = "n: questions; ±: standard error; shots: solved examples; chat: its template"
LARGE = 10  # values from which on one decimal is enough
NONE = "none"  # the harness's name of no filter
Name = tuple[str, str, str]


def print_request(request: LmEvalRequest) -> None:
    """Print which model is evaluated, and whether its chat template is applied."""
    chat = "on" if request.chat else "off"
    usual = "" if request.chat == request.model.chat else ", as asked"
    why = "a policy" if request.model.chat else "no policy of a run"
    reason = usual or f", because it is {why}"
    line(f"{one_line(request.model.title)}: chat template {chat}{reason}", style="bold")


def keep_and_print(request: LmEvalRequest, scores: list[TaskScore]) -> None:
    """Add the figures to the file of their model, print their table, and where they are kept."""
    model, out = request.model, request.out
    if out is not None:
        old = read_scores(out)
        new = ModelScores(model=model.name, weights=model.weights, scores=scores)
        write_scores(out, added(old, new))
        if old is not None and old.weights != new.weights:
            gone = ", ".join(old.tasks)
            line(f"figures of earlier weights are removed: {one_line(gone)}", style="yellow")
    _print_scores(model.title, scores)
    if out is not None:
        line(f"kept in {one_line(str(out))}", whole=True)
    else:
        line("not kept, because it is of no run: --out FILE keeps it")


def print_harness(run: RunState) -> None:
    """Print what is kept of the models of a run as they are now."""
    for model in sorted(run.harness, key=_place):
        _print_scores(f"{run.name}/{model}", run.harness[model].scores)


def _print_scores(title: str, scores: Sequence[TaskScore]) -> None:
    versions = ", ".join(dict.fromkeys(one.lm_eval for one in scores))
    line(f"{one_line(title)}: lm-evaluation-harness {one_line(versions)}", style="bold")
    console().print(scores_table(scores))
    print_notes(notes_of(scores))


def scores_table(scores: Sequence[TaskScore]) -> Table:
    """Return a table with a row per task and metric; parts of groups are indented."""
    table = framed("", first="task")
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    table.add_column("metric", overflow="fold")
    for name in ("value", "n", "shots", "chat"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in scores:
        indent = "  " if one.group else ""
        table.add_row(
            plain_name(f"{indent}{one.task}"),
            plain_name(metric_of(one)),
            Text(value_of(one.value, one.stderr)),
            Text(_count(one.count)),
            Text(_count(one.shots)),
            Text("on" if one.chat else "off"),
        )
    return table


def notes_of(scores: Sequence[TaskScore]) -> Iterator[str]:
    """Yield what has to be known to read the figures."""
    yield MEANING
    limits = sorted({one.limit for one in scores if one.limit is not None})
    if limits:
        several = " or ".join(map(str, limits))
        yield f"--limit: the first {several} questions of each task, so not the task's published figure"
    cut = {one.task: one.cut for one in scores if one.cut}
    for task, count in cut.items():
        yield (
            f"{task}: {count} questions are longer than the model reads; their beginning was left out"
        )


def metric_of(one: TaskScore) -> str:
    """Return the name of a metric, with its filter, and with its direction where lower is better."""
    kept = "" if one.filter == NONE else f", {one.filter}"
    return f"{one.metric}{kept}" + (" (lower is better)" if one.higher_is_better is False else "")


def value_of(value: float | None, stderr: float | None) -> str:
    """Return 0.412 ± 0.015; large values have one decimal."""
    if value is None:
        return "-"
    decimals = 1 if abs(value) >= LARGE else 3
    return f"{value:.{decimals}f}" + ("" if stderr is None else f" ± {stderr:.{decimals}f}")


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def harness_blocks(groups: Sequence[Group]) -> list[Block]:
    """Return the table of the page, a column per model; the parts of groups are folded below it."""
    models = sorted(
        {name for group in groups for run in group.runs for name in run.state.harness}, key=_place
    )
    columns = [(model, group) for model in models for group in groups if _runs(group, model)]
    if not columns:
        return []
    found = [_by_name(_runs(group, model), model) for model, group in columns]
    firsts = {name: some[0][1] for column in found for name, some in column.items()}
    names = [group.column(model) for model, group in columns]
    asked = [name for name, one in firsts.items() if one.group is None]
    parts = [name for name, one in firsts.items() if one.group is not None]
    blocks = [_table(asked, firsts, names, found)] if asked else []
    if parts:
        folded = [_table(parts, firsts, names, found)]
        blocks.append({"kind": "fold", "title": "parts of groups of tasks", "blocks": folded})
    shown = [one for column in found for some in column.values() for _, one in some]
    return [*blocks, {"kind": "notes", "lines": [*_versions(shown), *notes_of(shown)]}]


def _place(model: str) -> tuple[int, str]:
    """Return the order of a model: base, then the stages, the chosen weights after the last ones."""
    stage = model.removesuffix(f"/{BEST}")
    order = [BASE, *STAGES]
    return order.index(stage) if stage in order else len(order), model


def _runs(group: Group, model: str) -> list[RunFiles]:
    return [run for run in group.runs if model in run.state.harness]


def _by_name(runs: Sequence[RunFiles], model: str) -> dict[Name, list[tuple[int, TaskScore]]]:
    """Return {task, metric, filter: [(seed, figure) of each run]}."""
    found: dict[Name, list[tuple[int, TaskScore]]] = {}
    for run in runs:
        for one in run.state.harness[model].scores:
            found.setdefault((one.task, one.metric, one.filter), []).append((run.seed, one))
    return found


def _table(
    names: Sequence[Name],
    firsts: dict[Name, TaskScore],
    columns: Sequence[str],
    found: Sequence[dict[Name, list[tuple[int, TaskScore]]]],
) -> Block:
    rows = [
        {
            "head": [firsts[name].task, metric_of(firsts[name])],
            "cells": [_cell(column.get(name, [])) for column in found],
        }
        for name in names
    ]
    return {
        "kind": "table",
        "title": "",
        "columns": [heading_of(column) for column in columns],
        "rows": rows,
    }


def _cell(found: Sequence[tuple[int, TaskScore]]) -> list[str]:
    """Return value ± standard error, of several seeds their mean [interval]; then how it was asked."""
    if not found:
        return ["-"]
    ways = {(one.shots, one.limit, one.chat, one.task_version) for _, one in found}
    if len(ways) > 1:
        return ["-", "runs asked in different ways"]
    one = found[0][1]
    known = [(seed, (each.value, None, None)) for seed, each in found if each.value is not None]
    if len(found) == 1 or not known:
        return [value_of(one.value, one.stderr), _asked(one, one.count)]
    mean = over_seeds(known)
    ends = "" if mean["low"] is None else f" [{mean['low']:.3f}, {mean['high']:.3f}]"
    counts = [each.count for _, each in found if each.count is not None]
    return [
        f"{value_of(mean['value'], None)}{ends}",
        _asked(one, sum(counts)),
        f"{len(known)} runs",
    ]


def _asked(one: TaskScore, count: int | None) -> str:
    chat = "chat" if one.chat else "no chat"
    return f"n {_count(count)} · {_count(one.shots)} shots · {chat}"


def _versions(scores: Sequence[TaskScore]) -> Iterator[str]:
    """Yield the versions of the programs, and of the tasks where a task has two of them."""
    for name in ("lm_eval", "transformers"):
        yield f"{name} {', '.join(dict.fromkeys(getattr(one, name) for one in scores))}"
    versions: dict[str, dict[str | None, None]] = {}
    for one in scores:
        versions.setdefault(one.task, {})[one.task_version] = None
    for task, several in versions.items():
        if len(several) > 1:
            yield f"{task}: figures of different versions of the task ({', '.join(map(str, several))})"

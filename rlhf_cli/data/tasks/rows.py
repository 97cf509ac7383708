"""The rows of a task: read, checked, and divided into trained on, selected by and held out.

A row's side is that of its question, by the rule of data/split.py: the question is what the first
template asks that is not turned around, so all renderings of a row are on one side.
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats.fields import found, reach
from rlhf_cli.data.records import BadRow, DataError, Filtered, Origin, RowError
from rlhf_cli.data.sources import rows
from rlhf_cli.data.split import normalised, number, place
from rlhf_cli.data.tasks.render import OURS, example, names_in, texts_of
from rlhf_cli.data.tasks.rendered import RENDERED, Read, rendered_rows
from rlhf_cli.data.tasks.task import Task, TaskRow, Template


@dataclass(slots=True, kw_only=True)
class TaskRows:
    """A task with its usable rows. templates: of the task, or those that its rendered rows name.

    bad: what was skipped . num_read: rows of all sources . num_good: usable ones, beyond a cap too .
    num_asked_again: rows left out because their question is among the evaluation rows.
    """

    task: Task
    templates: tuple[Template, ...]
    train: list[TaskRow]
    select: list[TaskRow]
    evaluation: list[TaskRow]
    bad: list[BadRow]
    num_read: int
    num_good: int
    num_asked_again: int

    def templates_of(self, row: TaskRow) -> tuple[Template, ...]:
        """Return the templates that a row has a text by."""
        if not row.rendered:
            return self.templates
        return tuple(template for template in self.templates if template.name in row.rendered)


def task_rows(
    task: Task, *, seed: int, eval_fraction: float, select_fraction: float, cap: int | None = None
) -> TaskRows:
    """Return a task's rows by side, at most `cap` of each, drawn by the seed where there are more."""
    read = [_Read.of(task, source) for source in task.source.every]
    own, apart = read[0], read[1] if len(read) > 1 else None
    places = _places(own.rows, seed)
    below = eval_fraction + select_fraction
    asked = {row.question for row in apart.rows} if apart else set()
    sides: dict[str, list[TaskRow]] = {"train": [], "select": [], "evaluation": []}
    again = 0
    for row, u in zip(own.rows, places, strict=True):
        if row.question in asked:
            again += 1
        elif u >= eval_fraction:
            sides["select" if u < below else "train"].append(row)
        elif apart is None:
            sides["evaluation"].append(row)
    if apart:
        sides["evaluation"] = apart.rows
    return TaskRows(
        task=task,
        templates=own.templates,
        **{side: _drawn(side, task, listed, seed, cap) for side, listed in sides.items()},
        bad=[row for one in read for row in one.bad],
        num_read=sum(one.num_read for one in read),
        num_good=sum(len(one.rows) for one in read),
        num_asked_again=again,
    )


def eval_rows(
    task: Task,
    *,
    seed: int,
    eval_fraction: float,
    templates: int | None = None,
    limit: int | None = None,
) -> TaskRows:
    """Return a task's rows with the templates that ask for the answer, at most the first `templates`.

    Of the evaluation rows that have a text by one of them at most `limit`; the others may be exemplars.
    """
    found = task_rows(task, seed=seed, eval_fraction=eval_fraction, select_fraction=0.0)
    asking = [template for template in found.templates if not template.turned_around]
    found = replace(found, templates=tuple(asking[:templates]))
    able = [row for row in found.evaluation if found.templates_of(row)]
    if found.evaluation and not able:
        raise DataError(
            f"{task.file}: none of the {len(found.evaluation)} evaluation rows of task {task.name} has "
            "a template that asks for the answer; see turned_around there and evaluation.tasks.templates"
        )
    return replace(found, evaluation=_drawn("evaluation", task, able, seed, limit))


def _places(listed: list[TaskRow], seed: int) -> np.ndarray:
    numbers = [number(row.question, seed=seed) for row in listed]
    return place(np.array(numbers, dtype=np.uint64))


def _drawn(
    side: str, task: Task, listed: list[TaskRow], seed: int, most: int | None
) -> list[TaskRow]:
    if most is None or len(listed) <= most:
        return listed
    drawn = Random(f"{seed}/tasks/{task.name}/{side}").sample(range(len(listed)), most)
    return [listed[index] for index in sorted(drawn)]


@dataclass(slots=True, kw_only=True)
class _Read:
    """What one source of a task holds."""

    rows: list[TaskRow]
    templates: tuple[Template, ...]
    bad: list[BadRow]
    num_read: int

    @classmethod
    def of(cls, task: Task, source: Source) -> "_Read":
        good: list[Read] = []
        bad: list[BadRow] = []
        number = -1
        for number, (origin, row) in enumerate(rows(source)):
            try:
                good.append((number, origin, _mapped(row, source)))
            except RowError as error:
                bad.append(BadRow.of(origin, error))
        made = rendered_rows if _is_rendered(task, good) else _templated
        listed, templates, unusable = made(task, good)
        return cls(rows=listed, templates=templates, bad=bad + unusable, num_read=number + 1)


def _mapped(row: dict[str, Any] | RowError, source: Source) -> dict[str, Any]:
    """Return a row with its columns also under the names that templates use."""
    if isinstance(row, RowError):
        raise row
    return row | {name: reach(row, column, name) for name, column in source.columns.items()}


def _is_rendered(task: Task, good: list[Read]) -> bool:
    """Return whether the rows are prompts and completions already, by the file or by the columns."""
    if not good or task.source.rendered is not None:
        return bool(task.source.rendered)
    _, origin, first = good[0]
    rendered = all(name in first for name in RENDERED) and not task.templates
    if not task.templates and not rendered:
        raise DataError(
            f"{task.file}: task {task.name} has no templates, and {origin} has no columns "
            f"{', '.join(RENDERED)} of rendered rows (found {found(first)}); write templates"
        )
    return rendered


def _templated(
    task: Task, good: list[Read]
) -> tuple[list[TaskRow], tuple[Template, ...], list[BadRow]]:
    """Return the rows that templates can use, the task's templates, and the rows that are bad."""
    if good:
        check_names(task, good[0][1], good[0][2])
    listed, bad = [], []
    for place_in_file, origin, values in good:
        row = TaskRow(
            task=task.name,
            number=place_in_file,
            origin=origin,
            question="",
            values=values,
            rendered={},
        )
        try:
            listed.append(replace(row, question=_question(task, row)))
        except RowError as error:
            bad.append(BadRow.of(origin, error))
    return listed, task.templates, bad


def _question(task: Task, row: TaskRow) -> str:
    """Return what the first template asks, of those that ask for the answer and apply to the row."""
    why: RowError = Filtered("no template applies to the row")
    for template in (t for t in task.templates if not t.turned_around):
        try:
            return normalised(example(task, row, template, show_options=False).input)
        except Filtered as error:
            why = error
    raise why


def check_names(task: Task, origin: Origin, values: dict[str, Any]) -> None:
    """Refuse a template with a name that neither the first row nor the task has."""
    known = {*values, *OURS}
    for where, text in texts_of(task).items():
        for name in sorted(names_in(text) - known):
            meant = nearest(name, known)
            tail = did_you_mean([meant]) if meant else f": the row has {found(values)}"
            raise DataError(
                f"{task.file}: {where} uses {{{{{name}}}}}, which {origin} does not have{tail}"
            )
        if "options_" in names_in(text) and task.options is None and "answer choices" not in where:
            _require_choices(task, where)


def _require_choices(task: Task, where: str) -> None:
    own = {f"template {t.name}" for t in task.templates if t.options is not None}
    if where not in own:
        raise DataError(
            f"{task.file}: {where} uses {{{{options_}}}}, but the task has no options; write options"
        )

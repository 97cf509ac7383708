"""Rows that are rendered already (T0's dumps): columns prompt, completion and template."""

from dataclasses import replace
from typing import Any

from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.data.formats.dialogue import text_of
from rlhf_cli.data.formats.fields import found
from rlhf_cli.data.records import BadRow, DataError, Origin, RowError
from rlhf_cli.data.split import normalised
from rlhf_cli.data.tasks.render import example
from rlhf_cli.data.tasks.task import RenderedText, Task, TaskRow, Template
from rlhf_cli.data.validate import without_end_marks

RENDERED = ("template", "prompt", "completion")
Read = tuple[int, Origin, dict[str, Any]]  # number of the row, where it stands, its columns


def rendered_rows(
    task: Task, good: list[Read]
) -> tuple[list[TaskRow], tuple[Template, ...], list[BadRow]]:
    """Return (usable rows, templates in the order of the file, bad rows).

    A row is one line of the file, or all lines of one item where a column names the item.
    """
    bad: list[BadRow] = []
    items: dict[object, dict[str, RenderedText]] = {}
    names: dict[str, None] = {}
    for number, origin, values in good:
        try:
            name, text = _text(values, origin)
            item = number if task.source.item is None else str(_column(values, task.source.item))
            items.setdefault(item, {})[name] = text
        except RowError as error:
            bad.append(BadRow.of(origin, error))
        names |= {one: None for one in [values.get("template")] if isinstance(one, str)}
    templates = _templates(task, list(names))
    _with_completions(items)
    every = enumerate(items.values())
    listed = [_row(task, number, texts, templates, bad) for number, texts in every]
    return [row for row in listed if row.rendered], templates, bad


def _column(values: dict[str, Any], name: str) -> Any:
    if name not in values:
        raise RowError("missing column", f"{name}; found {found(values)}")
    return values[name]


def _text(values: dict[str, Any], origin: Origin) -> tuple[str, RenderedText]:
    """Return the name of a row's template, and its text."""
    name, prompt, completion = (text_of(_column(values, key), key) for key in RENDERED)
    completion = without_end_marks(completion).strip()
    if not name or not prompt:
        raise RowError("empty prompt" if name else "empty template")
    if not completion:
        raise RowError("empty target", f"template {name}")
    text = RenderedText(prompt=prompt, completion=completion, values=values, origin=origin)
    return name, text


def _templates(task: Task, names: list[str]) -> tuple[Template, ...]:
    for name in task.turned_around:
        if name not in names:
            meant = nearest(name, names)
            tail = did_you_mean([meant]) if meant else f"; it has {', '.join(names)}"
            raise DataError(f"{task.file}: turned_around: the rows have no template {name}{tail}")
    return tuple(
        Template(name=name, input="", target=None, turned_around=name in task.turned_around)
        for name in names
    )


def _with_completions(items: dict[object, dict[str, RenderedText]]) -> None:
    """Add to the columns of every row the different completions of its template."""
    known: dict[str, set[str]] = {}
    for texts in items.values():
        for name, text in texts.items():
            known.setdefault(name, set()).add(text.completion)
    listed = {name: sorted(completions) for name, completions in known.items()}
    for texts in items.values():
        for name, text in texts.items():
            texts[name] = replace(text, values={**text.values, "completions": listed[name]})


def _row(
    task: Task,
    number: int,
    texts: dict[str, RenderedText],
    templates: tuple[Template, ...],
    bad: list[BadRow],
) -> TaskRow:
    """Return the row with those of its texts that the task can use; its question is the first one's."""
    kept: dict[str, RenderedText] = {}
    for template in (t for t in templates if t.name in texts):
        one = TaskRow(
            task=task.name,
            number=number,
            origin=texts[template.name].origin,
            question="",
            values={},
            rendered=texts,
        )
        try:
            example(task, one, template)
            kept[template.name] = texts[template.name]
        except RowError as error:
            bad.append(BadRow.of(one.origin, error))
    first = next((t for t in templates if t.name in texts and not t.turned_around), None)
    asked = texts[first.name] if first else next(iter(texts.values()))
    return TaskRow(
        task=task.name,
        number=number,
        origin=asked.origin,
        question=normalised(asked.prompt),
        values={},
        rendered=kept,
    )

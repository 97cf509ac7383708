"""The good records of one source, with every other row counted in the report. No tensors."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from rlhf_cli.config.schema import Source, Ties
from rlhf_cli.data.embedded import EmbeddedTask, task_of
from rlhf_cli.data.formats.table import check_format, convert
from rlhf_cli.data.records import (
    BadRow,
    Comparison,
    DataError,
    Demonstration,
    Labelled,
    Message,
    Record,
    RowError,
)
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.sources import rows
from rlhf_cli.data.spec import ROLES, LoadSpec, label
from rlhf_cli.data.validate import notes_on, validate, without_end_marks

ALONE = "labelled responses without one of the other label for the same prompt"


def read_records(
    spec: LoadSpec, source: Source, role: str, report: DataReport, *, drop_ties: bool
) -> Iterator[Record]:
    """Yield the records of a source that are valid; all others are counted."""
    ties = Ties.drop if drop_ties else Ties.soft
    for record in paired(_read(spec, source, role, report)):
        try:
            if isinstance(record, BadRow):
                raise record.error()
            cleaned = _clean(record, report)
            validate(cleaned, ties=ties)
        except RowError as error:
            report.reject(record.origin, error)
            continue
        report.notes.update(notes_on(cleaned))
        report.num_kept += 1
        yield cleaned


def _read(
    spec: LoadSpec, source: Source, role: str, report: DataReport
) -> Iterator[Record | BadRow]:
    if task := task_of(source.path):
        yield from _generated(task, spec, source, role, report)
        return
    check_format(source, role)
    reported = False
    for origin, row in rows(source):
        report.rows[label(source)] += 1
        try:
            if isinstance(row, RowError):
                raise row
            records, fields = convert(row, origin, source, role)
        except RowError as error:
            report.reject(origin, error)
            continue
        report.notes.update(fields.notes)
        unread = [str(key) for key in fields if key not in fields.read]
        if unread and not reported:
            report.notes[f"columns of {label(source)} not used: {', '.join(unread)}"] = 1
        reported = True
        yield from records


def _generated(
    task: EmbeddedTask, spec: LoadSpec, source: Source, role: str, report: DataReport
) -> Iterator[Record]:
    scheme, _, named = source.path.partition(":")
    if named not in ROLES:
        known = ", ".join(f"{scheme}:{name}" for name in ROLES)
        raise DataError(f"{source.path} is not one of {known}")
    if named != role:
        raise DataError(f"{source.path} stands under data.{role}; it belongs under data.{named}")
    settings = spec.settings[scheme]
    for record in task.generate(named, settings=settings, seed=spec.seed)[: source.limit]:
        report.rows[source.path] += 1
        yield record


def _clean(record: Record, report: DataReport) -> Record:
    """Cut literal end-of-text marks from assistant turns: the renderer adds the real one."""
    if isinstance(record, Comparison):
        responses = tuple(without_end_marks(text) for text in record.responses)
        changed = replace(record, responses=responses) if responses != record.responses else record
    elif isinstance(record, Demonstration):
        messages = tuple(map(_without_mark, record.messages))
        changed = replace(record, messages=messages) if messages != record.messages else record
    else:
        return record
    if changed is not record:
        report.notes["end-of-text mark written in the text, removed"] += 1
    return changed


def _without_mark(message: Message) -> Message:
    if message.role != "assistant":
        return message
    return replace(message, content=without_end_marks(message.content))


def paired(records: Iterable[Record | Labelled | BadRow]) -> Iterator[Record | BadRow]:
    """Yield every other record as it comes; then a comparison per prompt that has both labels."""
    judged: dict[tuple[Message, ...], list[Labelled]] = {}
    for record in records:
        if isinstance(record, Labelled):
            judged.setdefault(record.prompt, []).append(record)
        else:
            yield record
    for labelled in judged.values():
        if len({row.good for row in labelled}) == 2:
            yield _comparison(labelled)
        else:
            yield from (BadRow(row.origin, ALONE, left_out=True) for row in labelled)


def _comparison(rows: list[Labelled]) -> Comparison:
    """Return the comparison in which every good response beats every bad one."""
    good = [i for i, row in enumerate(rows) if row.good]
    bad = [i for i, row in enumerate(rows) if not row.good]
    better = tuple((i, j) for i in good for j in bad)
    responses = tuple(row.response for row in rows)
    return Comparison(rows[0].prompt, responses, better, (), rows[0].origin)

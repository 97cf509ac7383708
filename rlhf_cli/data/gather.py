"""The good records of one source, with every other row counted in the report. No tensors."""

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

from rlhf_cli.config.schema import Source, Ties
from rlhf_cli.data.check import check, notes_on, without_end_marks
from rlhf_cli.data.embedded import generator_of
from rlhf_cli.data.formats import check_format, convert
from rlhf_cli.data.labelled import paired
from rlhf_cli.data.records import (
    BadRow,
    Comparison,
    DataError,
    Demonstration,
    Message,
    Record,
    RowError,
)
from rlhf_cli.data.report import Report
from rlhf_cli.data.sources import rows
from rlhf_cli.data.spec import ROLES, LoadSpec, label


def gather(
    spec: LoadSpec, source: Source, role: str, report: Report, *, drop_ties: bool
) -> Iterator[Record]:
    """Yield the records of a source that keep the laws; all others are counted."""
    ties = Ties.drop if drop_ties else Ties.soft
    for record in paired(_read(spec, source, role, report)):
        try:
            if isinstance(record, BadRow):
                raise record.error()
            cleaned = _clean(record, report)
            check(cleaned, ties=ties)
        except RowError as error:
            report.reject(record.origin, error)
            continue
        report.notes.update(notes_on(cleaned))
        report.num_kept += 1
        yield cleaned


def _read(spec: LoadSpec, source: Source, role: str, report: Report) -> Iterator[Record | BadRow]:
    if generator := generator_of(source):
        yield from _generated(generator, spec, source, role, report)
        return
    check_format(source, role)
    told = False
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
        if unread and not told:
            report.notes[f"columns of {label(source)} not used: {', '.join(unread)}"] = 1
        told = True
        yield from records


def _generated(
    generator: ModuleType, spec: LoadSpec, source: Source, role: str, report: Report
) -> Iterator[Record]:
    scheme, _, named = source.path.partition(":")
    if named not in ROLES:
        known = ", ".join(f"{scheme}:{name}" for name in ROLES)
        raise DataError(f"{source.path} is not one of {known}")
    if named != role:
        raise DataError(f"{source.path} stands under data.{role}; it belongs under data.{named}")
    for record in generator.generate(named, world=spec.world, seed=spec.seed)[: source.limit]:
        report.rows[source.path] += 1
        yield record


def _clean(record: Record, report: Report) -> Record:
    """Literal end-of-text marks cut from what an assistant says: the renderer adds the real one."""
    if isinstance(record, Comparison):
        said = tuple(without_end_marks(text) for text in record.responses)
        changed = replace(record, responses=said) if said != record.responses else record
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

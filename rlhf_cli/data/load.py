"""From the sources of a role to its records on disk: read, check, count, hold out. No tokenizer.

`Reading` makes one pass over the sources, with one row in memory at a time, and then divides the
records into sides. `read_records` is what happens to each row: it is converted, cleaned and validated.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cli.config.schema import Source, Ties
from rlhf_cli.data.cache import Unusable, code, read_account, write_account
from rlhf_cli.data.embedded import MIXTURE, EmbeddedTask, scheme_of, task_of
from rlhf_cli.data.formats.table import check_format, convert
from rlhf_cli.data.record_files import Records, RecordTable, RecordWriter
from rlhf_cli.data.records import (
    BadRow,
    Comparison,
    DataError,
    Demonstration,
    Labelled,
    Message,
    Prompt,
    Record,
    RowError,
)
from rlhf_cli.data.report import EXAMPLES, DataReport
from rlhf_cli.data.sources import rows
from rlhf_cli.data.spec import ROLES, LoadSpec, label
from rlhf_cli.data.split import HeldOut, Pool, sides, text_sides
from rlhf_cli.data.validate import notes_on, validate, without_end_marks

ALONE = "labelled responses without one of the other label for the same prompt"
RECORDS = "records.arrow"
STEP = 1024  # rows between two reports of progress


def records_key(spec: LoadSpec) -> str:
    """Return the sha256 of all that decides the records and their report, this code included."""
    labels = {role: list(found.items()) for role, found in spec.contents().items()}
    known = [spec.role, spec.config(), labels, code()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def opened(folder: Path, spec: LoadSpec) -> Records | None:
    """Return the records in this folder; None where they are not complete."""
    try:
        sides, report = read_account(folder, spec)
        table = RecordTable(folder / RECORDS, spec.role)
    except Unusable:
        return None
    return Records(table=table, **sides, report=report)


class Reading:
    """Records on their way from the sources to a folder: first all rows, then the sides."""

    def __init__(self, spec: LoadSpec, folder: Path, *, num_examples: int | None = EXAMPLES):
        self.spec, self.folder = spec, folder
        self.spans: list[tuple[Source, slice]] = []
        self.report = DataReport(
            role=spec.role if spec.read_as in ROLES else spec.read_as,
            strict=spec.strict,
            max_bad_fraction=spec.max_bad_fraction,
            num_examples=num_examples,
            rows=Counter({label(s): 0 for s in spec.sources if scheme_of(s.path) != MIXTURE}),
        )

    def rows(self) -> Iterator[int]:
        """Write every good record; yield their number so far, now and then."""
        seen: set[bytes] = set()
        with RecordWriter(self.folder / RECORDS, seed=self.spec.seed) as writer:
            for source in self.spec.sources:
                start = writer.num
                for record in self._records(source, seen):
                    writer.write(record)
                    if writer.num % STEP == 0:
                        yield writer.num
                self.spans.append((source, slice(start, writer.num)))
            yield writer.num

    def _records(self, source: Source, seen: set[bytes]) -> Iterable[Any]:
        spec = self.spec
        instead = spec.role == "prompts" and spec.read_as == "comparisons"
        kind = "comparisons" if instead else spec.role
        records = read_records(spec, source, kind, self.report, drop_ties=spec.drop_ties)
        return once_each(records, seen, self.report) if instead else records

    def settle(self, marked: list[np.ndarray]) -> None:
        """Write the sides and the report. marked: the questions of each source marked eval."""
        spec, report = self.spec, self.report
        table = RecordTable(self.folder / RECORDS, spec.role)
        every, asked, apart = np.arange(table.num), table.whole("asked"), table.whole("apart")
        pools = [
            Pool(source, every[span], asked[span], apart[span], table.units[span])
            for source, span in self.spans
        ]
        out = HeldOut(
            named=np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *marked])),
            by_hash=spec.by_hash,
            eval_fraction=spec.eval_fraction,
        )
        if spec.role == "pretraining" or not spec.divided:
            found = text_sides(pools, out, seed=spec.seed, report=report)
        else:
            found = sides(
                pools,
                out,
                select_fraction=spec.select_fraction,
                seed=spec.seed,
                report=report,
            )
        report.num_train, report.num_select, report.num_eval = map(table.num_per_epoch, found)
        write_account(self.folder, found, report)


def marked_alone(spec: LoadSpec) -> list[LoadSpec]:
    """Return each source marked eval as a role of its own: no role may train on its questions."""
    return [
        replace(
            spec,
            role=role,
            read_as=role,
            sources=(replace(source, eval=False, weight=None),),
            marked=(),
            by_hash=False,
            eval_fraction=0.0,
            select_fraction=0.0,
            drop_ties=False,
            mixture=None,
        )
        for role, source in spec.marked
    ]


def once_each(records: Iterable[Any], seen: set[bytes], report: DataReport) -> Iterator[Prompt]:
    """Yield in place of comparisons their prompts, each once; seen: hashes of those met before."""
    for record in records:
        asked = repr([(m.role, m.content, m.supervised) for m in record.prompt])
        digest = hashlib.sha256(asked.encode(errors="surrogatepass")).digest()
        if digest in seen:
            report.leave_out("a repeated prompt", 1)
            continue
        seen.add(digest)
        yield Prompt(record.prompt, record.origin, record.meta | reference_of(record))


def reference_of(record: Comparison) -> dict[str, str]:
    """Return {"reference": the response that wins and never loses}; nothing where that is not one."""
    losers = {loser for _, loser in record.better}
    first = {winner for winner, _ in record.better} - losers
    return {"reference": record.responses[first.pop()]} if len(first) == 1 else {}


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
    if scheme_of(source.path) == MIXTURE:
        assert spec.mixture is not None, source
        yield from islice(spec.mixture.records(report), source.limit)
        return
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

"""From the configuration to records on disk: read, check, count, hold out. No tensors, no tokenizer.

One pass over the sources, of which a row is held at a time; then the sides.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cli.config.schema import Source
from rlhf_cli.data.cache import Unusable, code, read_account, write_account
from rlhf_cli.data.embedded import scheme_of
from rlhf_cli.data.read_records import read_records
from rlhf_cli.data.record_files import Records, RecordTable, RecordWriter
from rlhf_cli.data.records import Prompt
from rlhf_cli.data.report import EXAMPLES, DataReport
from rlhf_cli.data.spec import LoadSpec, label
from rlhf_cli.data.split import HeldOut, Pool, sides, text_sides

RECORDS = "records.arrow"
STEP = 1024  # rows between two signs of life


def records_key(spec: LoadSpec) -> str:
    """Return the sha256 of all that decides the records and their report, this code included."""
    labels = {role: list(found.items()) for role, found in spec.contents().items()}
    known = [spec.role, spec.config(), labels, code()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


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


class Reading:
    """Records on their way from the sources to a folder: first all rows, then the sides."""

    def __init__(self, spec: LoadSpec, folder: Path, *, num_examples: int | None = EXAMPLES):
        self.spec, self.folder = spec, folder
        self.spans: list[tuple[Source, slice]] = []
        self.report = DataReport(
            role=spec.role,
            strict=spec.strict,
            max_bad_fraction=spec.max_bad_fraction,
            num_examples=num_examples,
            rows=Counter({label(s): 0 for s in spec.sources if scheme_of(s.path) != "tasks"}),
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
        records = read_records(spec, source, spec.read_as, self.report, drop_ties=spec.drop_ties)
        return records if spec.read_as == spec.role else once_each(records, seen, self.report)

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
        if spec.role == "pretraining":
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


def opened(folder: Path, spec: LoadSpec) -> Records | None:
    """Return the records in this folder; None where they are not complete."""
    try:
        sides, report = read_account(folder, spec)
        table = RecordTable(folder / RECORDS, spec.role)
    except Unusable:
        return None
    return Records(table=table, **sides, report=report)


def once_each(records: Iterable[Any], seen: set[bytes], report: DataReport) -> Iterator[Prompt]:
    """Yield in place of comparisons their prompts, each once; seen: hashes of those met before."""
    for record in records:
        asked = repr([(m.role, m.content, m.supervised) for m in record.prompt])
        digest = hashlib.sha256(asked.encode(errors="surrogatepass")).digest()
        if digest in seen:
            report.leave_out("a repeated prompt", 1)
            continue
        seen.add(digest)
        yield Prompt(record.prompt, record.origin, record.meta)

"""Rows of a source; records and examples of a configuration as lists, read as by the commands."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cli.config.schema import Source
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.load import RECORDS
from rlhf_cli.data.prepare import opened, prepare
from rlhf_cli.data.record_files import Records, RecordTable, RecordWriter
from rlhf_cli.data.records import Record
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.sources import rows as rows_of
from rlhf_cli.data.split import number, opening, place
from rlhf_cli.stages.reading import records_of, spec_of

ROWS = [{"prompt": "a\nb", "response": 'say "c", d'}, {"prompt": "é 你", "response": "\tx"}]


def read(path, **source):
    """Return (origin, row or error) of every row."""
    return list(rows_of(Source(path=str(path), **source)))


def values(path, **source):
    return [row for _, row in read(path, **source)]


def lines(path, **source):
    return [origin.line for origin, _ in read(path, **source)]


@dataclass(kw_only=True)
class Loaded:
    """The records of each split, and the report on the rows."""

    train: list
    select: list
    eval: list
    report: DataReport
    records: Any = None

    @property
    def sides(self):
        return self.train, self.select, self.eval


def survey(cfg: Config, role: str) -> Loaded:
    """Return the records of a role; problems of the complete role are only in the report."""
    with tempfile.TemporaryDirectory() as folder:
        records = records_of(spec_of(cfg, role), Path(folder), silent=True)
    train, select, held = (list(records.each(rows)) for rows in records.sides)
    return Loaded(train=train, select=select, eval=held, report=records.report, records=records)


def load(cfg: Config, role: str) -> Loaded:
    """Return the same, and raise what a run would raise."""
    loaded = survey(cfg, role)
    loaded.report.enforce()
    return loaded


def encoded(renderer: Renderer, loaded: Loaded, data) -> tuple[list, list, list]:
    """Return (train, select, held out) as tokens, and update the report; nothing is refused."""
    with tempfile.TemporaryDirectory() as folder:
        list(prepare(loaded.records, renderer, data, Path(folder)))
        found = opened(Path(folder), loaded.report, loaded.records)
    assert found is not None
    return list(found.train), list(found.select), list(found.eval)


def of(records: list[Record], report: DataReport) -> Loaded:
    """Return records without a file, all of them in the training split."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / RECORDS
        with RecordWriter(path, seed=0) as writer:
            for record in records:
                writer.write(record)
        table = RecordTable(path, report.role)
    none = np.zeros(0, dtype=np.int64)
    rows = Records(
        table=table, train=np.arange(len(records)), select=none, eval=none, report=report
    )
    return Loaded(train=records, select=[], eval=[], report=report, records=rows)


def place_of(text: str, *, seed: int) -> float:
    """Return the position of a normalised question in [0, 1)."""
    return float(place(np.array([number(text, seed=seed)], dtype=np.uint64))[0])


def leak_check(sides: dict[str, tuple[list, list]]) -> dict[tuple[str, str], int]:
    """Return {(role trained on, role evaluated on): held-out records whose opening is trained on}.

    sides {role: (train, held out)}. Every pair of roles counts, a role with itself too; no entry
    means no leak.
    """
    trained = {role: {opening(r) for r in train} for role, (train, _) in sides.items()}
    leaks = {}
    for role, openings in trained.items():
        for other, (_, evaluated) in sides.items():
            count = sum(opening(record) in openings for record in evaluated)
            if count:
                leaks[role, other] = count
    return leaks

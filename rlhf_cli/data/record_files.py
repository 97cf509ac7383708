"""The records of a role in an Arrow file, and which of them each side has.

Rows are written in order, then mapped into memory, where any one of them is read. `Writer` and `Table`
are for rows of any columns, records here and encoded rows in rows.py.
"""

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rlhf_cli.data.records import (
    Comparison,
    Demonstration,
    Message,
    Origin,
    Prompt,
    Record,
    context_of,
)
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.split import number, opening

GROUP = 1024  # rows of a record batch; a row's batch is found by division
KINDS: dict[str, type] = {"comparisons": Comparison, "prompts": Prompt}  # all others: Demonstration
SHORT = json.JSONEncoder(separators=(",", ":"), default=str)
# asked: a number of its question; apart: whether its meta data hold it out; slot: of records that take
# turns, an epoch each, the place in the epoch that they share.
SCHEMA = pa.schema(
    {"asked": pa.uint64(), "apart": pa.bool_(), "slot": pa.int64(), "record": pa.large_binary()}
)


class Writer:
    """Writes rows, dictionaries with the columns of a schema; `num` were added."""

    def __init__(self, path: Path, schema: pa.Schema):
        self.schema = schema
        self.file = pa.ipc.new_file(str(path), schema)
        self.waiting: dict[str, list[Any]] = {name: [] for name in schema.names}
        self.num = 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self.file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; a column that it lacks is null."""
        for name, values in self.waiting.items():
            values.append(row.get(name))
        self.num += 1
        if self.num % GROUP == 0:
            self._flush()

    def _flush(self) -> None:
        if self.waiting and self.waiting[self.schema.names[0]]:
            arrays = [pa.array(self.waiting[f.name], f.type) for f in self.schema]
            self.file.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
            self.waiting = {name: [] for name in self.schema.names}


class Table:
    """A file of rows, mapped into memory, of which the system keeps no more than was read lately."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            self.content = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self.content)))
        self.schema = reader.schema
        self.groups = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.num = sum(map(len, self.groups))
        self.num_read = 0

    def value(self, row: int, column: str) -> Any:
        """Return bytes, a number, or None."""
        return self.groups[row // GROUP].column(column)[row % GROUP].as_py()

    def ints(self, row: int, column: str) -> list[int]:
        """Return the numbers of a list."""
        return self.groups[row // GROUP].column(column)[row % GROUP].values.to_numpy().tolist()

    def whole(self, column: str) -> np.ndarray:
        """Return a column of numbers or flags."""
        none = np.zeros(0, dtype=self.schema.field(column).type.to_pandas_dtype())
        parts = [group.column(column).to_numpy(zero_copy_only=False) for group in self.groups]
        return np.concatenate([none, *parts])

    def is_set(self, column: str) -> np.ndarray:
        """Return whether each row has a value in a column."""
        parts = [group.column(column).is_valid().to_numpy(False) for group in self.groups]
        return np.concatenate([np.zeros(0, dtype=bool), *parts])

    def was_read(self) -> None:
        """Count a row that was read; now and then give the pages of all back to the system."""
        self.num_read += 1
        if self.num_read % GROUP == 0:
            self.content.madvise(mmap.MADV_DONTNEED)


class RecordWriter(Writer):
    """Writes records, each with what decides its side: its question, and whether it is set apart.

    slot: of records that take turns, an epoch each, the place in the epoch that they share.
    """

    def __init__(self, path: Path, *, seed: int):
        super().__init__(path, SCHEMA)
        self.seed = seed

    def write(self, record: Record) -> None:
        """Write a record after those before."""
        asked = number(opening(record), seed=self.seed)
        apart = bool(record.meta.get("held_out"))
        slot = record.meta.get("slot")
        self.add({"asked": asked, "apart": apart, "slot": slot, "record": _packed(record)})


class RecordTable(Table):
    """The records that were written; each is read when it is asked for."""

    def __init__(self, path: Path, role: str):
        super().__init__(path)
        self.kind = KINDS.get(role, Demonstration)

    @cached_property
    def units(self) -> np.ndarray:
        """Return a number per record, equal for those of one slot, which an epoch has one of."""
        slotted = self.is_set("slot")
        if not slotted.any():
            return np.arange(self.num)
        slots = np.where(slotted, self.whole("slot"), 0.0).astype(np.int64)
        return np.where(slotted, slots, slots.max() + 1 + np.arange(self.num))

    def num_per_epoch(self, rows: np.ndarray) -> int:
        """Return how many examples these records are in an epoch."""
        return len(np.unique(self.units[rows]))

    def record(self, row: int) -> Record:
        """Return the record of a row."""
        content = json.loads(self.value(row, "record"))
        self.was_read()
        (source, place, line), meta, turns, *ranked = content
        origin, messages = Origin(source, place, line), tuple(Message(*turn) for turn in turns)
        if not ranked:
            return self.kind(messages, origin, meta)
        responses, better, ties = ranked
        pairs = (tuple(map(tuple, some)) for some in (better, ties))
        return Comparison(messages, tuple(responses), *pairs, origin, meta)


@dataclass(slots=True, kw_only=True)
class Records:
    """The records of a role: the rows of each side, and the report of all that was read."""

    table: RecordTable
    train: np.ndarray
    select: np.ndarray
    eval: np.ndarray
    report: DataReport

    @property
    def sides(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the rows (trained on, selected by, held out)."""
        return self.train, self.select, self.eval

    def each(self, rows: np.ndarray) -> Iterator[Record]:
        """Yield the records of these rows."""
        return map(self.table.record, rows.tolist())


def _packed(record: Record) -> bytes:
    origin = [record.origin.source, record.origin.row, record.origin.line]
    content: list[Any] = [origin, record.meta, turns(context_of(record))]
    if isinstance(record, Comparison):
        content += [record.responses, record.better, record.ties]
    return as_json(content)


def turns(messages: tuple[Message, ...]) -> list[list[Any]]:
    """Return messages as JSON values."""
    return [[m.role, m.content, m.supervised] for m in messages]


def as_json(value: Any) -> bytes:
    """Return a value as short JSON."""
    return SHORT.encode(value).encode()

"""Encoded rows on disk: an Arrow file of a role's rows beside that of its records, and views of some.

Of a file nothing is read but what is asked for. A view gives the same objects as encode.py.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.record_files import RecordTable, Table, Writer, as_json, turns
from rlhf_cli.data.records import BadRow, Comparison, Demonstration, Message, Prompt

INTS, TEXT = pa.list_(pa.int32()), pa.large_binary()
COMMON = {"row": pa.int64(), "length": pa.int32(), "findings": TEXT, "ids": INTS}
COLUMNS: dict[type, dict[str, pa.DataType]] = {
    Demonstration: {"mask": pa.list_(pa.uint8())},
    Comparison: {"sizes": INTS, "better": INTS, "ties": INTS},
    Prompt: {"messages": TEXT},
}
Example = EncodedDemonstration | EncodedComparison | EncodedPrompt


class RowWriter(Writer):
    """Writes encoded rows of one kind of record, in order."""

    def __init__(self, path: Path, kind: type):
        super().__init__(path, pa.schema(COMMON | COLUMNS[kind]))

    def write(self, row: int, found: Example | BadRow) -> None:
        """Write the encoded form of the record in that row, or why it has none."""
        self.add({"row": row} | _columns(found))


def _columns(found: Example | BadRow) -> dict[str, Any]:
    """Return the columns of a row; `findings` is what goes into the report."""
    if isinstance(found, BadRow):
        return {"length": 0, "findings": as_json([found.reason, found.detail, found.left_out])}
    any_finding = found.notes or found.differences
    findings = {"findings": as_json([found.notes, found.differences])} if any_finding else {}
    return findings | _tokens(found)


def _tokens(found: Example) -> dict[str, Any]:
    if isinstance(found, EncodedDemonstration):
        mask = np.array(found.loss_mask, dtype=np.uint8)
        return {"length": len(found.ids), "ids": _numbers(found.ids), "mask": mask}
    if isinstance(found, EncodedPrompt):
        cut = found.messages != found.record.messages
        messages = {"messages": as_json(turns(found.messages))} if cut else {}
        return {"length": len(found.ids), "ids": _numbers(found.ids), **messages}
    sizes = [len(found.prompt_ids), *map(len, found.response_ids)]
    return {
        "length": sizes[0] + max(sizes[1:]),
        "ids": _numbers([*found.prompt_ids, *chain.from_iterable(found.response_ids)]),
        "sizes": sizes,
        "better": [place for pair in found.better for place in pair],
        "ties": [place for pair in found.ties for place in pair],
    }


def _numbers(ids: list[int]) -> np.ndarray:
    """Return the ids as an array, which Arrow writes faster than a list."""
    return np.fromiter(ids, dtype=np.int32, count=len(ids))


def _pairs(flat: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


class RowTable(Table):
    """A file of encoded rows, beside the records that they are of."""

    def __init__(self, path: Path, records: RecordTable):
        super().__init__(path)
        self.records = records

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of every row, of its longest response where it has several."""
        return self.whole("length")

    @cached_property
    def units(self) -> np.ndarray:
        """Return a number per row, equal for those of which an epoch has one."""
        return self.records.units[self.whole("row")]

    def num_per_epoch(self, rows: np.ndarray) -> int:
        """Return how many examples these rows are in an epoch."""
        return len(np.unique(self.units[rows]))

    def rows_with_findings(self) -> np.ndarray:
        """Return the rows that have findings for the report."""
        return np.flatnonzero(self.is_set("findings"))

    def findings(self, row: int) -> Any:
        """Return [reason, detail, left out] of an unusable row, [notes, differences], or None."""
        content = self.value(row, "findings")
        return None if content is None else json.loads(content)

    def record(self, row: int) -> Any:
        """Return the record that was encoded, which is read when a field of it is needed."""
        return StoredRecord(self.records, self.value(row, "row"))

    def example(self, row: int) -> Example:
        """Return the encoded row, with its record."""
        self.was_read()
        record, ids = self.record(row), self.ints(row, "ids")
        if self.records.kind is Demonstration:
            mask = [bool(flag) for flag in self.ints(row, "mask")]
            return EncodedDemonstration(ids=ids, loss_mask=mask, record=record)
        if self.records.kind is Prompt:
            cut = self.value(row, "messages")
            messages = None if cut is None else tuple(Message(*turn) for turn in json.loads(cut))
            return EncodedPrompt(ids=ids, messages=messages or record.messages, record=record)
        prompt, *sizes = self.ints(row, "sizes")
        ends = list(accumulate([prompt, *sizes]))
        return EncodedComparison(
            prompt_ids=ids[:prompt],
            response_ids=[ids[end - size : end] for size, end in zip(sizes, ends[1:], strict=True)],
            better=_pairs(self.ints(row, "better")),
            ties=_pairs(self.ints(row, "ties")),
            record=record,
        )


class StoredRecord:
    """The record of a row, read from its table when something of it is asked for."""

    __slots__ = ("row", "table")

    def __init__(self, table: RecordTable, row: int):
        self.table, self.row = table, row

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table.record(self.row), name)


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Sequence[Any]):
    """Some rows of a table, as a list of encoded examples that are read when they are asked for."""

    table: RowTable
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> "Rows": ...

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return replace(self, index=self.index[place])
        return self.table.example(int(self.index[place]))

    def __iter__(self) -> Iterator[Any]:
        return map(self.table.example, self.index.tolist())

    def of_epoch(self, epoch: int) -> "Rows":
        """Return the rows of an epoch: of those that take turns the one whose turn it is."""
        units = self.table.units[self.index]
        order = np.argsort(units, kind="stable")
        _, first, counts = np.unique(units[order], return_index=True, return_counts=True)
        if len(counts) == len(units):
            return self
        chosen = order[first + epoch % counts]
        return replace(self, index=self.index[np.sort(chosen)])

    def lengths(self) -> list[int]:
        """Return the number of tokens of each."""
        return self.table.lengths[self.index].tolist()

    @property
    def questions(self) -> np.ndarray:
        """Return a number of the question of each, equal for equal questions, (n,) uint64."""
        return self.table.records.whole("asked")[self.table.whole("row")[self.index]]

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

from rlhf_cli.data.arrow_files import Table, Writer
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.record_files import RecordTable, as_json, turns
from rlhf_cli.data.records import BadRow, Comparison, Demonstration, Message, Prompt

INTS, TEXT = pa.list_(pa.int32()), pa.large_binary()
COMMON = {"row": pa.int64(), "length": pa.int32(), "said": TEXT, "ids": INTS}
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
        """The encoded form of the record in that row, or why it has none."""
        self.add({"row": row} | _columns(found))


def _columns(found: Example | BadRow) -> dict[str, Any]:
    """`said` is what the report has to tell of the row."""
    if isinstance(found, BadRow):
        return {"length": 0, "said": as_json([found.reason, found.detail, found.left_out])}
    told = found.notes or found.differences
    said = {"said": as_json([found.notes, found.differences])} if told else {}
    return said | _tokens(found)


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
    """As they are written: Arrow takes arrays faster than lists."""
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
        """Tokens of every row, of its longest response where it has several."""
        return self.whole("length")

    def told(self) -> np.ndarray:
        """The rows of which the report has something to tell."""
        return np.flatnonzero(self.is_set("said"))

    def said(self, row: int) -> Any:
        """[reason, detail, left out] of a row that cannot be used, [notes, differences], or None."""
        content = self.value(row, "said")
        return None if content is None else json.loads(content)

    def record(self, row: int) -> Any:
        """The record that was encoded, to be read when something of it is asked for."""
        return StoredRecord(self.records, self.value(row, "row"))

    def example(self, row: int) -> Example:
        """The encoded row, with its record."""
        self.was_read()
        record, ids = self.record(row), self.ints(row, "ids")
        if self.records.kind is Demonstration:
            mask = [bool(flag) for flag in self.ints(row, "mask")]
            return EncodedDemonstration(ids=ids, loss_mask=mask, record=record)
        if self.records.kind is Prompt:
            cut = self.value(row, "messages")
            said = None if cut is None else tuple(Message(*turn) for turn in json.loads(cut))
            return EncodedPrompt(ids=ids, messages=said or record.messages, record=record)
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

    def lengths(self) -> list[int]:
        """Tokens of each."""
        return self.table.lengths[self.index].tolist()

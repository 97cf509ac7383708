"""Encoded rows on disk, memory-mapped: an Arrow file of a role's rows, and views of some of them.

Of a file nothing is read but what is asked for. A view gives the same objects as encode.py.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.records import (
    BadRow,
    Comparison,
    Demonstration,
    Message,
    Origin,
    Prompt,
    Record,
    context_of,
)

GROUP = 1024  # rows of a record batch; a row's batch is found by division
INTS, TEXT = pa.list_(pa.int32()), pa.large_binary()
COMMON = {"length": pa.int32(), "first": TEXT, "apart": pa.bool_(), "record": TEXT, "said": TEXT}
COLUMNS: dict[type, dict[str, pa.DataType]] = {
    Demonstration: {"ids": INTS, "mask": pa.list_(pa.uint8())},
    Comparison: {"ids": INTS, "sizes": INTS, "better": INTS, "ties": INTS},
    Prompt: {"ids": INTS, "messages": TEXT},
}
Example = EncodedDemonstration | EncodedComparison | EncodedPrompt


class RowWriter:
    """Writes rows of one kind of record, in order; `num` were written."""

    def __init__(self, path: Path, kind: type):
        self.schema = pa.schema(COMMON | COLUMNS[kind])
        self.file = pa.ipc.new_file(str(path), self.schema)
        self.waiting: list[dict[str, Any]] = []
        self.num = 0

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self.file.close()

    def add(self, record: Record, found: Example | BadRow) -> None:
        """A record with its encoded form, or with why it has none."""
        self.waiting.append(_columns(record, found))
        self.num += 1
        if len(self.waiting) == GROUP:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            self.file.write_batch(pa.RecordBatch.from_pylist(self.waiting, self.schema))
            self.waiting = []


def _columns(record: Record, found: Example | BadRow) -> dict[str, Any]:
    """The row as columns; `first` decides its side, `said` is what the report has to tell of it."""
    first = next((m.content for m in context_of(record) if m.role in ("user", "text")), "")
    row: dict[str, Any] = {
        "first": first.encode(errors="surrogatepass"),
        "apart": bool(record.meta.get("held_out")),
        "record": _packed(record),
        "length": 0,
    }
    if isinstance(found, BadRow):
        return row | {"said": _json([found.reason, found.detail, found.left_out])}
    if found.notes or found.differences:
        row["said"] = _json([found.notes, found.differences])
    return row | _tokens(found)


def _tokens(found: Example) -> dict[str, Any]:
    if isinstance(found, EncodedDemonstration):
        return {"length": len(found.ids), "ids": found.ids, "mask": list(map(int, found.loss_mask))}
    if isinstance(found, EncodedPrompt):
        cut = found.messages != found.record.messages
        messages = {"messages": _json(_turns(found.messages))} if cut else {}
        return {"length": len(found.ids), "ids": found.ids, **messages}
    sizes = [len(found.prompt_ids), *map(len, found.response_ids)]
    return {
        "length": sizes[0] + max(sizes[1:]),
        "ids": [token for part in (found.prompt_ids, *found.response_ids) for token in part],
        "sizes": sizes,
        "better": [place for pair in found.better for place in pair],
        "ties": [place for pair in found.ties for place in pair],
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=str).encode()


def _turns(messages: tuple[Message, ...]) -> list[list[Any]]:
    return [[m.role, m.content, m.supervised] for m in messages]


def _packed(record: Record) -> bytes:
    origin = [record.origin.source, record.origin.row, record.origin.line]
    content: list[Any] = [origin, record.meta, _turns(context_of(record))]
    if isinstance(record, Comparison):
        content += [record.responses, record.better, record.ties]
    return _json(content)


def _pairs(flat: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


class Table:
    """A file of rows, memory-mapped."""

    def __init__(self, path: Path, kind: type):
        self.kind = kind
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.groups = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.num = sum(map(len, self.groups))

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of every row, of its longest response where it has several."""
        return self._whole("length")

    def _whole(self, column: str) -> np.ndarray:
        parts = [group.column(column).to_numpy(zero_copy_only=False) for group in self.groups]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)

    def told(self) -> np.ndarray:
        """The rows of which the report has something to tell."""
        parts = [group.column("said").is_valid().to_numpy(False) for group in self.groups]
        return np.flatnonzero(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)

    def value(self, row: int, column: str) -> Any:
        """Bytes, or None."""
        return self.groups[row // GROUP].column(column)[row % GROUP].as_py()

    def ints(self, row: int, column: str) -> list[int]:
        return self.groups[row // GROUP].column(column)[row % GROUP].values.to_numpy().tolist()

    def said(self, row: int) -> Any:
        """[reason, detail, left out] of a row that cannot be used, [notes, differences], or None."""
        content = self.value(row, "said")
        return None if content is None else json.loads(content)

    def record(self, row: int) -> Record:
        """The record that was encoded."""
        (source, number, line), meta, turns, *ranked = json.loads(self.value(row, "record"))
        origin, messages = Origin(source, number, line), tuple(Message(*turn) for turn in turns)
        if not ranked:
            return self.kind(messages, origin, meta)
        responses, better, ties = ranked
        pairs = (tuple(map(tuple, some)) for some in (better, ties))
        return Comparison(messages, tuple(responses), *pairs, origin, meta)

    def example(self, row: int) -> Example:
        """The encoded row, with its record to be read when it is asked for."""
        record: Any = StoredRecord(self, row)
        ids = self.ints(row, "ids")
        if self.kind is Demonstration:
            mask = [bool(flag) for flag in self.ints(row, "mask")]
            return EncodedDemonstration(ids=ids, loss_mask=mask, record=record)
        if self.kind is Prompt:
            cut = self.value(row, "messages")
            turns = None if cut is None else tuple(Message(*turn) for turn in json.loads(cut))
            return EncodedPrompt(ids=ids, messages=turns or record.messages, record=record)
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

    def __init__(self, table: Table, row: int):
        self.table, self.row = table, row

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table.record(self.row), name)


@dataclass(frozen=True, slots=True)
class Placed:
    """A row as its side is decided: what it asks first, and whether its maker holds it out."""

    table: Table
    row: int

    @property
    def messages(self) -> tuple[Message, ...]:
        return (
            Message("user", self.table.value(self.row, "first").decode(errors="surrogatepass")),
        )

    @property
    def meta(self) -> dict[str, bool]:
        return {"held_out": self.table.value(self.row, "apart")}


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Sequence[Any]):
    """Some rows of a table, as a list of encoded examples that are read when they are asked for."""

    table: Table
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

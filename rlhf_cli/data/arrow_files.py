"""Rows in an Arrow file: written in order, then mapped into memory, where any one of them is read."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

GROUP = 1024  # rows of a record batch; a row's batch is found by division


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
    """A file of rows in memory, of which the system keeps no more than was read lately."""

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

"""A key-value cache written in place: rows leave it by index, columns that nobody reads fall away."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK = 128  # columns a full cache grows by, at least


@dataclass(slots=True)
class Frame:
    """Which part of the memory every layer reads and writes: `rows`, and columns from `first` on."""

    num_rows: int
    num_columns: int  # that may be needed
    rows: slice
    first: int


class RolloutLayer(CacheLayerMixin):
    """Keys and values (rows, heads, columns, D) of one layer, filled up to column `end`."""

    is_sliding = False

    def __init__(self, frame: Frame):
        super().__init__()
        self.frame, self.end = frame, frame.first

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Room for the columns at hand and one block more; what is never written is masked, not noise."""
        columns = min(self.frame.num_columns, self.end + key_states.shape[2] + BLOCK)
        self.keys, self.values = (
            x.new_zeros(self.frame.num_rows, x.shape[1], columns, x.shape[3])
            for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Append columns; returns what the rows in the frame have seen. (B, heads, n, D)

        A frame of several times B rows takes as many copies of each row.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.end = self.end, self.end + key_states.shape[2]
        if self.end > self.keys.shape[2]:
            self._grow()
        rows, first, end = self.frame.rows, self.frame.first, self.end
        for memory, states in ((self.keys, key_states), (self.values, value_states)):
            place = memory[rows, :, start:end].unflatten(0, (len(states), -1))
            place.copy_(states[:, None])
        if start == first:
            return key_states, value_states
        return self.keys[rows, :, first:end], self.values[rows, :, first:end]

    def _grow(self) -> None:
        columns = max(self.end, self.keys.shape[2] + max(BLOCK, self.keys.shape[2] // 2))
        columns = max(self.end, min(columns, self.frame.num_columns))
        self.keys, self.values = (self._larger(x, columns) for x in (self.keys, self.values))

    def _larger(self, memory: Tensor, columns: int) -> Tensor:
        used, rows = slice(self.frame.first, memory.shape[2]), self.frame.rows
        larger = memory.new_empty(rows.stop, memory.shape[1], columns, memory.shape[3])
        larger[:, :, used] = memory[rows, :, used]
        return larger

    def move(self, source: Tensor, target: Tensor) -> None:
        """Rows `source` take the places of rows `target`."""
        used = slice(self.frame.first, self.end)
        for memory in (self.keys, self.values):
            memory[target, :, used] = memory[source, :, used]

    def get_seq_length(self) -> int:
        """Columns the rows in the frame have seen."""
        return self.end - self.frame.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the mask over the cache."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """It grows."""
        return -1


class RolloutCache(Cache):
    """One memory for prompts that are read part by part and rows that leave one by one."""

    def __init__(self, *, num_rows: int, num_columns: int):
        self.frame = Frame(num_rows, num_columns, slice(0, num_rows), 0)
        super().__init__(layer_class_to_replicate=partial(RolloutLayer, self.frame))

    def open(self, rows: slice, first: int) -> None:
        """What is fed next are the first columns of `rows`, from column `first` on."""
        self.show(rows, first)
        for layer in self.layers:
            layer.end = first

    def show(self, rows: slice, first: int) -> None:
        """From now on these rows are read, from column `first` on."""
        self.frame.rows, self.frame.first = rows, first

    def keep(self, running: Tensor) -> Tensor:
        """Rows from the end take the places of those that stop. -> the old place of every row"""
        places = torch.arange(int(running.sum()), device=running.device)
        free = (~running[: len(places)]).nonzero().squeeze(1)
        places[free] = len(places) + running[len(places) :].nonzero().squeeze(1)
        for layer in self.layers if len(free) else ():
            layer.move(places[free], free)
        return places

"""A key-value cache that is written in place: rows leave it by index, unused columns are dropped."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH_COLUMNS = 128  # least number of columns by which a full cache grows


@dataclass(slots=True)
class CacheView:
    """Which part of the memory every layer reads and writes: `rows`, and columns from `first` on.

    num_columns: the most that can be needed.
    """

    num_rows: int
    num_columns: int
    rows: slice
    first: int


class KVCacheLayer(CacheLayerMixin):
    """Keys and values (rows, heads, columns, D) of one layer, filled up to column `end`."""

    is_sliding = False

    def __init__(self, view: CacheView):
        super().__init__()
        self.view, self.end = view, view.first

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the columns at hand and one block more."""
        columns = min(self.view.num_columns, self.end + key_states.shape[2] + GROWTH_COLUMNS)
        # Zeros, because a masked column still enters a product: uninitialised memory could hold nan.
        self.keys, self.values = (
            x.new_zeros(self.view.num_rows, x.shape[1], columns, x.shape[3])
            for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Append columns; return all columns of the rows in the view. (B, heads, n, D)

        A view of k * B rows stores each row k times: a prompt is read once for all its copies.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.end = self.end, self.end + key_states.shape[2]
        if self.end > self.keys.shape[2]:
            self._grow()
        rows, first, end = self.view.rows, self.view.first, self.end
        for memory, states in ((self.keys, key_states), (self.values, value_states)):
            # The copies of a prompt are neighbouring rows: seen as (B, k), one write reaches all of
            # them.
            target = memory[rows, :, start:end].unflatten(0, (len(states), -1))
            target.copy_(states[:, None])
        if start == first:
            # Nothing was there before, so the new columns are all there is, once per row.
            return key_states, value_states
        return self.keys[rows, :, first:end], self.values[rows, :, first:end]

    def _grow(self) -> None:
        """Move the rows in the view to a larger memory, half as large again."""
        # By a factor, so that all moves together copy each column a bounded number of times.
        columns = max(self.end, self.keys.shape[2] + max(GROWTH_COLUMNS, self.keys.shape[2] // 2))
        columns = max(self.end, min(columns, self.view.num_columns))
        self.keys, self.values = (self._enlarged(x, columns) for x in (self.keys, self.values))

    def _enlarged(self, memory: Tensor, columns: int) -> Tensor:
        """Return the used part of the memory in a new one; rows beyond the view are dropped."""
        used, rows = slice(self.view.first, memory.shape[2]), self.view.rows
        larger = memory.new_empty(rows.stop, memory.shape[1], columns, memory.shape[3])
        larger[:, :, used] = memory[rows, :, used]
        return larger

    def move_rows(self, source: Tensor, target: Tensor) -> None:
        """Copy rows `source` over rows `target`."""
        used = slice(self.view.first, self.end)
        for memory in (self.keys, self.values):
            memory[target, :, used] = memory[source, :, used]

    def get_seq_length(self) -> int:
        """Return how many columns the rows in the view hold."""
        return self.end - self.view.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of the mask over the cache."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: the cache grows."""
        return -1


class KVCache(Cache):
    """One memory for prompts that are read in parts and rows that leave one by one."""

    def __init__(self, *, num_rows: int, num_columns: int):
        self.view = CacheView(num_rows, num_columns, slice(0, num_rows), 0)
        super().__init__(layer_class_to_replicate=partial(KVCacheLayer, self.view))

    def begin_prefill(self, rows: slice, first: int) -> None:
        """Have the next update write the first columns of `rows`, from column `first` on."""
        self.set_view(rows, first)
        for layer in self.layers:
            layer.end = first

    def set_view(self, rows: slice, first: int) -> None:
        """Restrict reading and writing to these rows, from column `first` on."""
        self.view.rows, self.view.first = rows, first

    def keep(self, running: Tensor) -> Tensor:
        """Keep the running rows only. running (n,) bool -> the old index of every row that is left

        Rows from the end are copied over those that stopped, so few rows move, but their order changes.
        """
        places = torch.arange(int(running.sum()), device=running.device)
        # places[i] is the old row of row i: rows running at the end fill the gaps in front.
        free = (~running[: len(places)]).nonzero().squeeze(1)
        places[free] = len(places) + running[len(places) :].nonzero().squeeze(1)
        for layer in self.layers if len(free) else ():
            layer.move_rows(places[free], free)
        return places

"""Decoding with CUDA graphs: one launch per token instead of hundreds.

Everything a graph reads is at a fixed address: a step is a pure function of what was written there, so
capturing it, replaying it and running it eagerly give the same result.
"""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from rlhf_cli.models.forward import accepts
from rlhf_cli.models.generation.decoding import FastDecoder, forward
from rlhf_cli.models.unpadding.attention import ATTENTION

COLUMN_BLOCK = 256  # a graph reads the cache up to a multiple of this
MIN_ROWS = 8  # rows of the smallest graph: a step of one row takes as long
# Rotary positions whose frequencies depend on the longest text.
LENGTH_DEPENDENT_ROPES = {"dynamic", "longrope"}
Step = Callable[[], None]

# A graph whose capture failed is kept alive: the allocator still refers to it.
_refused: list[torch.cuda.CUDAGraph] = []


def can_capture(model: nn.Module) -> bool:
    """Return whether no step of this model depends on numbers that only the device holds."""
    return (
        model._can_compile_fullgraph
        and model.config._attn_implementation in ("sdpa", ATTENTION)
        and accepts(model, "position_ids")
        and not LENGTH_DEPENDENT_ROPES & _rope_types(model.config)
        and all(type(x) is DynamicLayer for x in DynamicCache(config=model.config).layers)
    )


def _rope_types(config: PretrainedConfig) -> set[str | None]:
    """Return the kinds of rotary positions; a model may have several."""
    found = getattr(config, "rope_parameters", None) or {}
    nested = [one for one in found.values() if isinstance(one, dict)]
    return {one.get("rope_type") for one in nested or [found]}


def captured(step: Step) -> Step:
    """Return the step as a CUDA graph; the step itself once any capture has failed in this process."""
    if _refused:
        return step
    side, graph = _capture_stream(torch.cuda.current_device()), torch.cuda.CUDAGraph()
    # The eager run inside the capture reads what the current stream is still writing.
    side.wait_stream(torch.cuda.current_stream())
    try:
        _capture(step, side, graph)
    except RuntimeError as error:
        _refused.append(graph)
        torch.cuda.synchronize()
        warnings.warn(f"decoding continues without CUDA graphs: {error}", stacklevel=2)
        return step
    torch.cuda.current_stream().wait_stream(side)
    return graph.replay


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """Return the one stream of all captures: every stream in use allocates a workspace of its own."""
    return torch.cuda.Stream(device)


def _capture(step: Step, side: torch.cuda.Stream, graph: torch.cuda.CUDAGraph) -> None:
    """Run the step once eagerly, in which libraries choose their kernels, then capture it."""
    with torch.cuda.stream(side):
        step()
        # thread_local: other threads may call CUDA meanwhile.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            step()
        finally:
            graph.capture_end()


class StaticCacheLayer(CacheLayerMixin):
    """A part of a layer's memory; a tensor holds the index of the column to write."""

    is_sliding = False
    is_compileable = True

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor):
        super().__init__()
        self.keys, self.values, self.column = keys, values, column
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the memory is allocated."""

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Write the column, return all; the mask hides those not written yet. (B, heads, 1, D)"""
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return the number of columns before the new one, visible or hidden."""
        return self.keys.shape[2] - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the width of this part, and offset 0."""
        return self.keys.shape[2], 0

    def get_max_length(self) -> int:
        """Return the fixed number of columns."""
        return self.keys.shape[2]


class CUDAGraphDecoder(FastDecoder):
    """Rows in batches of a power of two, with one graph for each batch size and length of cache.

    A decoder must be used inside the autocast block in which it was made: copies of weights that autocast
    has cast keep their addresses only until that block ends.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Tensor,
        prompt_mask: Tensor,
        *,
        copies: int,
        max_new_tokens: int,
        capture: Callable[[Step], Step] = captured,
    ):
        super().__init__(model, prompts, prompt_mask, copies=copies, max_new_tokens=max_new_tokens)
        self.capture, self.steps = capture, {}
        size, self.total = bucket(len(self.rows)), self.width + max_new_tokens
        self.memory = [
            tuple(self._enlarged(x, size) for x in (layer.keys, layer.values))
            for layer in self.cache.layers
        ]
        # Dropping rows goes through the cache's layers, so they must share the memory of the
        # graphs.
        for layer, (keys, values) in zip(self.cache.layers, self.memory, strict=True):
            layer.keys, layer.values = keys, values
        place = prompts.device
        self.tokens, self.position_inputs = torch.zeros(2, size, 1, dtype=torch.long, device=place)
        self.column = torch.zeros(1, dtype=torch.long, device=place)
        self.columns = torch.arange(self.total, device=place)
        self.visible = torch.zeros(size, 1, 1, self.total, dtype=torch.bool, device=place)

    def _enlarged(self, memory: Tensor, size: int) -> Tensor:
        """Return the memory with the final number of rows and columns, so that it never moves again."""
        rows, _, columns, _ = memory.shape
        enlarged = memory.new_zeros(size, memory.shape[1], self.total, memory.shape[3])
        enlarged[:rows, :, :columns] = memory
        return enlarged

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row. tokens (n,)"""
        num, end = len(tokens), self.width + self.fed
        self.tokens[:num, 0], self.position_inputs[:num, 0] = tokens, self.positions
        self.column.fill_(end)
        seen = (self.columns >= self.starts[:, None]) & (self.columns <= end)
        self.visible[:num, 0, 0] = seen
        # Columns rounded up, so that one graph serves many tokens; those not yet written are
        # hidden.
        key = bucket(num), min(self.total, -(-(end + 1) // COLUMN_BLOCK) * COLUMN_BLOCK)
        if key not in self.steps:
            self.steps[key] = self._step(*key)
        run, out = self.steps[key]
        run()
        self.logits = out[0][:num]
        self.positions = self.positions + 1
        self.fed += 1
        for layer in self.cache.layers:
            layer.end = end + 1

    def _step(self, size: int, columns: int) -> tuple[Step, list[Tensor]]:
        """Return the step for `size` rows and the first `columns` columns, and the list with its output."""
        cache = Cache(
            layers=[
                StaticCacheLayer(keys[:size, :, :columns], values[:size, :, :columns], self.column)
                for keys, values in self.memory
            ]
        )
        tokens, at, seen = (
            self.tokens[:size],
            self.position_inputs[:size],
            self.visible[:size, ..., :columns],
        )
        out: list[Tensor] = []

        def step() -> None:
            out[:] = [forward(self.model, tokens, seen, at, cache)]

        return self.capture(step), out

    def keep(self, running: Tensor) -> Tensor:
        """Drop the rows that are not running once the others fit a smaller graph."""
        if bucket(int(running.sum())) == bucket(len(running)):
            return torch.arange(len(running), device=running.device)
        return super().keep(running)


def bucket(num: int) -> int:
    """Return the least power of two that is at least `num` and MIN_ROWS."""
    return 1 << (max(num, MIN_ROWS) - 1).bit_length()

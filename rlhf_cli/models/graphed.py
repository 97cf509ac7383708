"""Decoding as recorded CUDA graphs: one launch a token instead of hundreds.

Everything a graph reads lies at a fixed place: a step is a pure function of what was written there, so
recording it, repeating it and running it plainly do the same.
"""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from rlhf_cli.models import packing
from rlhf_cli.models.decoding import FastDecoder, forward
from rlhf_cli.models.loading import accepts

COLUMNS = 256  # a graph reads the cache up to a multiple of this
FEWEST = 8  # rows of the smallest graph: a step of one row takes as long
MOVING_ROPES = {"dynamic", "longrope"}  # frequencies that ask how long the longest text is
Step = Callable[[], None]

_refused: list[torch.cuda.CUDAGraph] = []  # kept: the allocator remembers a recording that failed


def can_record(model: nn.Module) -> bool:
    """Whether nothing in a step of this model depends on numbers that only the device knows."""
    return (
        model._can_compile_fullgraph
        and model.config._attn_implementation in ("sdpa", packing.NAME)
        and accepts(model, "position_ids")
        and not MOVING_ROPES & _ropes(model.config)
        and all(type(x) is DynamicLayer for x in DynamicCache(config=model.config).layers)
    )


def _ropes(config: PretrainedConfig) -> set[str | None]:
    """The kinds of rotary positions; a model may have several."""
    found = getattr(config, "rope_parameters", None) or {}
    nested = [one for one in found.values() if isinstance(one, dict)]
    return {one.get("rope_type") for one in nested or [found]}


def recorded(step: Step) -> Step:
    """The step as a CUDA graph; the step itself, from now on always, where one cannot be recorded."""
    if _refused:
        return step
    side, graph = _side(torch.cuda.current_device()), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    try:
        _record(step, side, graph)
    except RuntimeError as error:
        _refused.append(graph)
        torch.cuda.synchronize()
        warnings.warn(f"decoding goes on without CUDA graphs: {error}", stacklevel=2)
        return step
    torch.cuda.current_stream().wait_stream(side)
    return graph.replay


@cache
def _side(device: int) -> torch.cuda.Stream:
    """One stream for all recordings: each one that is used holds a workspace of its own."""
    return torch.cuda.Stream(device)


def _record(step: Step, side: torch.cuda.Stream, graph: torch.cuda.CUDAGraph) -> None:
    """Once plainly, which lets libraries choose their kernels, then recorded; other threads may go on."""
    with torch.cuda.stream(side):
        step()
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            step()
        finally:
            graph.capture_end()


class FixedLayer(CacheLayerMixin):
    """A part of a layer's memory; one column is written where a tensor says."""

    is_sliding = False
    is_compileable = True

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor):
        super().__init__()
        self.keys, self.values, self.column = keys, values, column
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The memory is there."""

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Write the column; the mask hides those not written yet. (B, heads, 1, D)"""
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns before the new one, read or hidden."""
        return self.keys.shape[2] - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The whole part."""
        return self.keys.shape[2], 0

    def get_max_length(self) -> int:
        """It does not grow."""
        return self.keys.shape[2]


class GraphedDecoder(FastDecoder):
    """Rows in batches of a power of two, one graph for each such size and length of cache.

    Weights that autocast has cast stay where they are for as long as it is on: a decoder lives within it.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Tensor,
        prompt_mask: Tensor,
        *,
        copies: int,
        max_new_tokens: int,
        record: Callable[[Step], Step] = recorded,
    ):
        super().__init__(model, prompts, prompt_mask, copies=copies, max_new_tokens=max_new_tokens)
        self.record, self.steps = record, {}
        size, self.total = bucket(len(self.rows)), self.width + max_new_tokens
        self.memory = [
            tuple(self._roomy(x, size) for x in (layer.keys, layer.values))
            for layer in self.cache.layers
        ]
        for layer, (keys, values) in zip(self.cache.layers, self.memory, strict=True):
            layer.keys, layer.values = keys, values
        place = prompts.device
        self.tokens, self.at = torch.zeros(2, size, 1, dtype=torch.long, device=place)
        self.column = torch.zeros(1, dtype=torch.long, device=place)
        self.columns = torch.arange(self.total, device=place)
        self.seen = torch.zeros(size, 1, 1, self.total, dtype=torch.bool, device=place)

    def _roomy(self, memory: Tensor, size: int) -> Tensor:
        rows, _, columns, _ = memory.shape
        roomy = memory.new_zeros(size, memory.shape[1], self.total, memory.shape[3])
        roomy[:rows, :, :columns] = memory
        return roomy

    def feed(self, tokens: Tensor) -> None:
        """Append one token a row. tokens (n,)"""
        num, end = len(tokens), self.width + self.fed
        self.tokens[:num, 0], self.at[:num, 0] = tokens, self.positions
        self.column.fill_(end)
        seen = (self.columns >= self.starts[:, None]) & (self.columns <= end)
        self.seen[:num, 0, 0] = seen
        key = bucket(num), min(self.total, -(-(end + 1) // COLUMNS) * COLUMNS)
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
        cache = Cache(
            layers=[
                FixedLayer(keys[:size, :, :columns], values[:size, :, :columns], self.column)
                for keys, values in self.memory
            ]
        )
        tokens, at, seen = self.tokens[:size], self.at[:size], self.seen[:size, ..., :columns]
        out: list[Tensor] = []

        def step() -> None:
            out[:] = [forward(self.model, tokens, seen, at, cache)]

        return self.record(step), out

    def keep(self, running: Tensor) -> Tensor:
        """Rows leave when a smaller graph holds those that are left."""
        if bucket(int(running.sum())) == bucket(len(running)):
            return torch.arange(len(running), device=running.device)
        return super().keep(running)


def bucket(num: int) -> int:
    """The least power of two that is not less, and not less than the fewest."""
    return 1 << (max(num, FEWEST) - 1).bit_length()

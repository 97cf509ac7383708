"""Decoding as recorded CUDA graphs: one launch a token instead of hundreds.

Everything a graph reads lies at a fixed place: a step is a pure function of what was written there, so
recording it, repeating it and running it plainly do the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from rlhf_cli.models.decoding import FastDecoder, forward
from rlhf_cli.models.loading import accepts

COLUMNS = 256  # a graph reads the cache up to a multiple of this
Step = Callable[[], None]


def can_record(model: nn.Module) -> bool:
    """Whether nothing in a step of this model depends on numbers that only the device knows."""
    return (
        model._can_compile_fullgraph
        and model.config._attn_implementation == "sdpa"
        and accepts(model, "position_ids")
        and all(type(x) is DynamicLayer for x in DynamicCache(config=model.config).layers)
    )


def recorded(step: Step) -> Step:
    """The step as a CUDA graph; the step itself where it cannot be recorded."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError:
        torch.cuda.synchronize()
        return step
    return graph.replay


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
    """Rows in batches of a power of two, one graph for each such size and length of cache."""

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
    """The least power of two that is not less."""
    return 1 << max(num - 1, 0).bit_length()

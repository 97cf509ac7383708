"""Logits of the next token of each running row, token by token, in three ways.

FastDecoder writes a cache of its own in place, PlainDecoder uses the cache that transformers makes for the
model, UncachedDecoder reads every text again for every token, which is slow and right for any causal model.
models/capabilities.py chooses among them.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rlhf_cli.core.masking import real_first
from rlhf_cli.models.forward import accepts
from rlhf_cli.models.generation.kv_cache import KVCache

COMPACT_SHARE = 0.75  # PlainDecoder drops finished rows once at most this share is running
PREFILL_TOKENS = {"cpu": 2048}  # tokens of prompts per forward pass, by device
DEFAULT_PREFILL_TOKENS = 32768


class Decoder(Protocol):
    """rows (n,): the caller's index of each row in the batch. logits (n, V): of their next tokens."""

    rows: Tensor
    logits: Tensor

    def keep(self, running: Tensor) -> Tensor:
        """Drop rows that are not running, or keep them. running (n,) bool -> old indices of those left"""

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row. tokens (n,)"""


def in_lock_step(model: nn.Module) -> bool:
    """Return whether processes must call the model equally often, because it gathers sharded weights."""
    return any(parameter.numel() == 0 for parameter in model.parameters())


def has_key_value_cache(model: nn.Module) -> bool:
    """Return whether the model's only state are keys and values, one column per token."""
    if cache_argument(model) != "past_key_values":
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def forward(
    model: nn.Module, tokens: Tensor, mask: Tensor | None, positions: Tensor, cache
) -> Tensor:
    """Return the logits of the last column. tokens, positions (B, n), mask (B, seen + n) -> (B, V)"""
    inputs = {"input_ids": tokens, "attention_mask": mask, cache_argument(model): cache}
    if accepts(model, "position_ids"):
        inputs["position_ids"] = positions
    if accepts(model, "logits_to_keep"):
        inputs["logits_to_keep"] = 1
    return model(**inputs, use_cache=True).logits[:, -1]


def cache_argument(model: nn.Module) -> str:
    """Return the name under which the model's forward takes a cache."""
    return "cache_params" if accepts(model, "cache_params") else "past_key_values"


class PlainDecoder:
    """Decode with the cache that transformers makes for the model; all prompts are read at once."""

    def __init__(
        self,
        model: nn.Module,
        prompts: Tensor,
        prompt_mask: Tensor,
        *,
        copies: int,
        max_new_tokens: int,
    ):
        prompts = prompts.repeat_interleave(copies, dim=0)
        self.model, self.cache = model, DynamicCache(config=model.config)
        self.mask = prompt_mask.repeat_interleave(copies, dim=0).long()
        self.positions = self.mask.sum(1)
        self.rows = torch.arange(len(prompts), device=prompts.device)
        positions = self.mask.cumsum(1) - self.mask
        self.logits = forward(model, prompts, self.mask, positions, self.cache)

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row. tokens (n,)"""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        positions = self.positions[:, None]
        # A model without attention holds the prompt in a state, in which nothing is left to mask.
        mask = None if cache_argument(self.model) == "cache_params" else self.mask
        self.logits = forward(self.model, tokens[:, None], mask, positions, self.cache)
        self.positions = self.positions + 1

    def keep(self, running: Tensor) -> Tensor:
        """Drop the rows that are not running, once that is worth a copy of the others."""
        index = running.nonzero().squeeze(1)
        if not 0 < len(index) <= COMPACT_SHARE * len(running):
            return torch.arange(len(running), device=running.device)
        # The only method to choose rows that recurrent states have too.
        self.cache.reorder_cache(index)
        self.rows, self.mask = self.rows[index], self.mask[index]
        self.positions = self.positions[index]
        return index


class UncachedDecoder:
    """Decode without a cache: every text is read completely for every token, padded at the right.

    In a causal model no output depends on later tokens, so this needs nothing but its forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Tensor,
        prompt_mask: Tensor,
        *,
        copies: int,
        max_new_tokens: int,
    ):
        self.model = model
        order, mask = real_first(prompt_mask)
        self.tokens = prompts.gather(1, order).repeat_interleave(copies, dim=0)
        self.tokens = pad(self.tokens, (0, max_new_tokens))
        self.lengths = mask.sum(1).repeat_interleave(copies, dim=0)
        self.rows = torch.arange(len(self.tokens), device=prompts.device)
        self.logits = self._read()

    def _read(self) -> Tensor:
        """Return the logits at the last token of each text."""
        width = int(self.lengths.max())
        columns = torch.arange(width, device=self.tokens.device)
        mask = (columns < self.lengths[:, None]).long()
        logits = self.model(
            input_ids=self.tokens[:, :width], attention_mask=mask, use_cache=False
        ).logits
        return logits[torch.arange(len(logits), device=logits.device), self.lengths - 1]

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row. tokens (n,)"""
        self.tokens = self.tokens.scatter(1, self.lengths[:, None], tokens[:, None])
        self.lengths = self.lengths + 1
        self.logits = self._read()

    def keep(self, running: Tensor) -> Tensor:
        """Drop the rows that are not running, unless none would be left."""
        index = running.nonzero().squeeze(1)
        if not len(index):
            return torch.arange(len(running), device=running.device)
        self.rows, self.tokens = self.rows[index], self.tokens[index]
        self.lengths = self.lengths[index]
        return index


class FastDecoder:
    """Decode with a cache written in place; prompts are read longest first, once for all their copies.

    Columns that are padding in every running row are not read, and a batch without padding has no mask.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Tensor,
        prompt_mask: Tensor,
        *,
        copies: int,
        max_new_tokens: int,
    ):
        num, self.width = prompts.shape
        self.model = model
        self.cache = KVCache(num_rows=num * copies, num_columns=self.width + max_new_tokens)
        lengths, order = prompt_mask.sum(1).sort(descending=True, stable=True)
        within = torch.arange(copies, device=order.device)
        self.rows = (order[:, None] * copies + within).flatten()
        self.positions = lengths.repeat_interleave(copies)
        self.fed = 0
        logits = self._read(prompts[order], prompt_mask[order].long(), lengths.tolist(), copies)
        self.logits = logits.repeat_interleave(copies, dim=0)
        self._trim()

    def _read(self, prompts: Tensor, mask: Tensor, lengths: list[int], copies: int) -> Tensor:
        """Fill the prompts' columns of the cache and return the logits after them."""
        logits, size = [], PREFILL_TOKENS.get(prompts.device.type, DEFAULT_PREFILL_TOKENS)
        if in_lock_step(self.model):
            # One part on every process: all must call the model equally often.
            size = prompts.numel()
        start = 0
        while start < len(prompts):
            width = max(lengths[start], 1)
            part = slice(start, start + max(1, size // width))
            stop = min(part.stop, len(prompts))
            tokens, real = prompts[part, -width:], mask[part, -width:]
            self.cache.begin_prefill(slice(start * copies, stop * copies), self.width - width)
            # Sorted by length: where the shortest has the width of the longest there is no padding.
            padding = None if lengths[stop - 1] == width else real
            positions = real.cumsum(1) - real
            logits.append(forward(self.model, tokens, padding, positions, self.cache))
            start = stop
        return torch.cat(logits)

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row. tokens (n,)"""
        self.fed += 1
        mask = None
        if self.padded:
            columns = torch.arange(self.first, self.width + self.fed, device=tokens.device)
            mask = (columns >= self.starts[:, None]).long()
        positions = self.positions[:, None]
        self.logits = forward(self.model, tokens[:, None], mask, positions, self.cache)
        self.positions = self.positions + 1

    def keep(self, running: Tensor) -> Tensor:
        """Drop the rows that are not running: rows from the end are copied over them, which is cheap."""
        if not running.any() or running.all():
            return torch.arange(len(running), device=running.device)
        places = self.cache.keep(running)
        self.rows, self.positions = self.rows[places], self.positions[places]
        self._trim()
        return places

    def _trim(self) -> None:
        """Restrict the cache to the running rows, from the first column on that is real in any of them."""
        self.starts = self.width + self.fed - self.positions
        self.first, last = (int(x) for x in self.starts.aminmax())
        self.padded = self.first != last
        self.cache.set_view(slice(0, len(self.rows)), self.first)

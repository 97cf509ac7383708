"""The logits of the next token of each running row, token by token, in three ways.

FastDecoder writes a cache of its own in place, PlainDecoder uses the cache that transformers makes for the
model, WholeDecoder reads every text again for every token, which is slow and right for any causal model.
Which one a model gets is decided in abilities.py.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rlhf_cli.core.masking import real_first
from rlhf_cli.models.loading import accepts
from rlhf_cli.models.rollout_cache import RolloutCache

COMPACT_AT = 0.75  # the plain way: finished rows leave once this share or less is still running
PREFILL = {"cpu": 2048}  # tokens of prompts read at a time
PREFILL_ELSEWHERE = 32768


class Decoder(Protocol):
    """rows (n,): the caller's number of each row in the batch. logits (n, V) of their next tokens."""

    rows: Tensor
    logits: Tensor

    def keep(self, running: Tensor) -> Tensor:
        """Rows that are not running may leave. running (n,) bool -> the old place of each row left"""

    def feed(self, tokens: Tensor) -> None:
        """Append one token a row. tokens (n,)"""


def in_lock_step(model: nn.Module) -> bool:
    """Whether processes must call the model equally often: it gathers sharded weights as it goes."""
    return any(parameter.numel() == 0 for parameter in model.parameters())


def keeps_columns(model: nn.Module) -> bool:
    """Whether all the model remembers of a text are keys and values, one column a token."""
    if cache_argument(model) != "past_key_values":
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def forward(
    model: nn.Module, tokens: Tensor, mask: Tensor | None, positions: Tensor, cache
) -> Tensor:
    """Logits of the last column. tokens, positions (B, n) . mask (B, seen + n) -> (B, V)"""
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
    """The cache that transformers makes for the model; every prompt is read at once."""

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
        """Append one token a row. tokens (n,)"""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        positions = self.positions[:, None]
        # a model without attention has folded the prompt's padding into its state: no mask is left to give
        mask = None if cache_argument(self.model) == "cache_params" else self.mask
        self.logits = forward(self.model, tokens[:, None], mask, positions, self.cache)
        self.positions = self.positions + 1

    def keep(self, running: Tensor) -> Tensor:
        """Drop the rows that are not running, once that is worth a copy of the others."""
        index = running.nonzero().squeeze(1)
        if not 0 < len(index) <= COMPACT_AT * len(running):
            return torch.arange(len(running), device=running.device)
        self.cache.reorder_cache(index)  # the one way to choose rows that recurrent states have too
        self.rows, self.mask = self.rows[index], self.mask[index]
        self.positions = self.positions[index]
        return index


class WholeDecoder:
    """No cache: every text is read whole for every token, with its padding at the right.

    What a causal model makes of a token depends on nothing that follows it, so this needs no more of the
    model than its forward pass.
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
        width = int(self.lengths.max())
        columns = torch.arange(width, device=self.tokens.device)
        mask = (columns < self.lengths[:, None]).long()
        logits = self.model(
            input_ids=self.tokens[:, :width], attention_mask=mask, use_cache=False
        ).logits
        return logits[torch.arange(len(logits), device=logits.device), self.lengths - 1]

    def feed(self, tokens: Tensor) -> None:
        """Append one token a row. tokens (n,)"""
        self.tokens = self.tokens.scatter(1, self.lengths[:, None], tokens[:, None])
        self.lengths = self.lengths + 1
        self.logits = self._read()

    def keep(self, running: Tensor) -> Tensor:
        """Rows that are not running leave, unless none would be left."""
        index = running.nonzero().squeeze(1)
        if not len(index):
            return torch.arange(len(running), device=running.device)
        self.rows, self.tokens = self.rows[index], self.tokens[index]
        self.lengths = self.lengths[index]
        return index


class FastDecoder:
    """A cache written in place; prompts read longest first, once for all their copies.

    Padding that no running row needs is not read, and a batch without padding needs no mask.
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
        self.cache = RolloutCache(num_rows=num * copies, num_columns=self.width + max_new_tokens)
        lengths, order = prompt_mask.sum(1).sort(descending=True, stable=True)
        within = torch.arange(copies, device=order.device)
        self.rows = (order[:, None] * copies + within).flatten()
        self.positions = lengths.repeat_interleave(copies)
        self.fed = 0
        logits = self._read(prompts[order], prompt_mask[order].long(), lengths.tolist(), copies)
        self.logits = logits.repeat_interleave(copies, dim=0)
        self._trim()

    def _read(self, prompts: Tensor, mask: Tensor, lengths: list[int], copies: int) -> Tensor:
        """The prompts' columns of the cache and the logits after them."""
        logits, size = [], PREFILL.get(prompts.device.type, PREFILL_ELSEWHERE)
        if in_lock_step(self.model):
            size = prompts.numel()
        start = 0
        while start < len(prompts):
            width = max(lengths[start], 1)
            part = slice(start, start + max(1, size // width))
            stop = min(part.stop, len(prompts))
            tokens, real = prompts[part, -width:], mask[part, -width:]
            self.cache.open(slice(start * copies, stop * copies), self.width - width)
            whole = None if lengths[stop - 1] == width else real
            positions = real.cumsum(1) - real
            logits.append(forward(self.model, tokens, whole, positions, self.cache))
            start = stop
        return torch.cat(logits)

    def feed(self, tokens: Tensor) -> None:
        """Append one token a row. tokens (n,)"""
        self.fed += 1
        mask = None
        if self.padded:
            columns = torch.arange(self.first, self.width + self.fed, device=tokens.device)
            mask = (columns >= self.starts[:, None]).long()
        positions = self.positions[:, None]
        self.logits = forward(self.model, tokens[:, None], mask, positions, self.cache)
        self.positions = self.positions + 1

    def keep(self, running: Tensor) -> Tensor:
        """Rows from the end take the places of those that stopped, which costs little."""
        if not running.any() or running.all():
            return torch.arange(len(running), device=running.device)
        places = self.cache.keep(running)
        self.rows, self.positions = self.rows[places], self.positions[places]
        self._trim()
        return places

    def _trim(self) -> None:
        """Show the running rows, from the first column on that is real in one of them."""
        self.starts = self.width + self.fed - self.positions
        self.first, last = (int(x) for x in self.starts.aminmax())
        self.padded = self.first != last
        self.cache.show(slice(0, len(self.rows)), self.first)

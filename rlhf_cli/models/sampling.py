"""Sampling responses: temperature is the only thing that shapes the distribution.

No top-k, no top-p, no repetition penalty: what is sampled is what `core.logprobs` scores. The random
numbers are handed in, one for every row and column, so a response depends on no other row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from rlhf_cli.models.loading import accepts

COMPACT_AT = 0.75  # finished rows leave the batch once this share or less is still running


@dataclass(slots=True, kw_only=True)
class Samples:
    """responses (B, R) right-padded, mask (B, R), finished (B,): ended by an end token."""

    responses: Tensor
    mask: Tensor
    finished: Tensor


def draw(logits: Tensor, uniform: Tensor, *, temperature: float) -> Tensor:
    """One token a row from softmax(logits / temperature) by inverting its distribution function.

    Temperature 0 takes the likeliest token. logits (B, V) . uniform (B,) in [0, 1) -> (B,)
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).to(uniform.dtype).cumsum(-1)
    level = uniform[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, level, right=True)
    return chosen.squeeze(1).clamp_(max=logits.shape[-1] - 1)


def _on_device(uniforms: Tensor, device: torch.device) -> Tensor:
    """Double precision where the device has it."""
    return uniforms.to(device, torch.float32 if device.type == "mps" else torch.float64)


def _alone(running: bool) -> bool:
    return running


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    end_ids: list[int],
    pad_id: int,
    temperature: float,
    going_on: Callable[[bool], bool] = _alone,
) -> Samples:
    """Continue left-padded prompts until an end token or as many tokens as `uniforms` has columns.

    A finished row leaves the batch, so a long response does not hold up the short ones.
    going_on(running) is asked once a token: processes that must step together go on while one does.
    prompts, prompt_mask (B, P) . uniforms (B, R)
    """
    device, max_new_tokens = prompts.device, uniforms.shape[1]
    uniforms = _on_device(uniforms, device)
    rows = torch.arange(len(prompts), device=device)
    responses = torch.full((len(prompts), max_new_tokens), pad_id, device=device)
    lengths = torch.zeros(len(prompts), dtype=torch.long, device=device)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    ends = torch.tensor(end_ids, device=device)
    decoder = _Decoder(model, prompts, prompt_mask)
    for column in range(max_new_tokens):
        tokens = draw(decoder.logits, uniforms[rows, column], temperature=temperature)
        running = ~finished[rows]
        responses[rows[running], column] = tokens[running]
        lengths[rows[running]] += 1
        finished[rows] |= torch.isin(tokens, ends) & running
        running = ~finished[rows]
        if column + 1 == max_new_tokens or not going_on(bool(running.any())):
            break
        if 0 < running.sum() <= COMPACT_AT * len(rows):
            decoder.keep(running)
            rows, tokens = rows[running], tokens[running]
        decoder.feed(tokens)
    width = int(lengths.max())
    mask = torch.arange(width, device=device) < lengths[:, None]
    return Samples(responses=responses[:, :width], mask=mask, finished=finished)


class _Decoder:
    """One model, its key-value cache, and the logits of the next token of each running row."""

    def __init__(self, model: nn.Module, prompts: Tensor, prompt_mask: Tensor):
        self.model = model
        self.mask = prompt_mask.long()
        self.positions = self.mask.sum(1)
        self.cache = DynamicCache()
        self.logits = self._forward(prompts, self.mask.cumsum(1) - self.mask)

    def feed(self, tokens: Tensor) -> None:
        """Append one token a row. tokens (B,)"""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._forward(tokens[:, None], self.positions[:, None])
        self.positions = self.positions + 1

    def keep(self, running: Tensor) -> None:
        """Drop the rows that are not running. running (B,) bool"""
        index = running.nonzero().squeeze(1)
        self.cache.batch_select_indices(index)
        self.mask, self.positions = self.mask[index], self.positions[index]

    def _forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        inputs = {"input_ids": tokens, "attention_mask": self.mask}
        if accepts(self.model, "position_ids"):
            inputs["position_ids"] = positions
        if accepts(self.model, "logits_to_keep"):
            inputs["logits_to_keep"] = 1
        output = self.model(**inputs, past_key_values=self.cache, use_cache=True)
        return output.logits[:, -1]

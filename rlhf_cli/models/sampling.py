"""Sampling responses: temperature is the only thing that shapes the distribution.

No top-k, no top-p, no repetition penalty: what is sampled is what `core.logprobs` scores.
"""

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


def draw(logits: Tensor, *, temperature: float, generator: torch.Generator | None) -> Tensor:
    """One token a row from softmax(logits / temperature) by inverting its distribution function.

    Temperature 0 takes the likeliest token. logits (B, V) -> (B,)
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).to(_wide(logits)).cumsum(-1)
    uniform = torch.rand(
        len(logits), 1, generator=generator, device=logits.device, dtype=cumulative.dtype
    )
    chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return chosen.squeeze(1).clamp_(max=logits.shape[-1] - 1)


def _wide(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.device.type == "mps" else torch.float64


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Tensor,
    prompt_mask: Tensor,
    *,
    max_new_tokens: int,
    end_ids: list[int],
    pad_id: int,
    temperature: float,
    generator: torch.Generator | None = None,
) -> Samples:
    """Continue left-padded prompts until an end token or `max_new_tokens`.

    A finished row leaves the batch, so a long response does not hold up the short ones.
    prompts, prompt_mask (B, P)
    """
    rows = torch.arange(len(prompts), device=prompts.device)
    responses = torch.full((len(prompts), max_new_tokens), pad_id, device=prompts.device)
    lengths = torch.zeros(len(prompts), dtype=torch.long, device=prompts.device)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    ends = torch.tensor(end_ids, device=prompts.device)
    decoder = _Decoder(model, prompts, prompt_mask)
    for column in range(max_new_tokens):
        tokens = draw(decoder.logits, temperature=temperature, generator=generator)
        running = ~finished[rows]
        responses[rows[running], column] = tokens[running]
        lengths[rows[running]] += 1
        finished[rows] |= torch.isin(tokens, ends) & running
        running = ~finished[rows]
        if column + 1 == max_new_tokens or not running.any():
            break
        if running.sum() <= COMPACT_AT * len(rows):
            decoder.keep(running)
            rows, tokens = rows[running], tokens[running]
        decoder.feed(tokens)
    width = int(lengths.max())
    mask = torch.arange(width, device=prompts.device) < lengths[:, None]
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

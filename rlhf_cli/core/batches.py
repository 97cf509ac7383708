"""Batches: tensors that belong together, as the packages pass them on.

Nothing is computed here beyond moving to a device, selecting rows and removing columns that are all pads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import pad


def _on(batch, device):
    """Return the batch with its tensors on the device."""
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    moved = {name: x.to(device) for name, x in tensors.items() if isinstance(x, Tensor)}
    return replace(batch, **moved)


@dataclass(slots=True, kw_only=True)
class SFTBatch:
    """Texts to learn; token t is predicted from those before it where loss_mask[:, t] is True.

    tokens, mask, loss_mask, positions (B, T). packed: a row holds several texts in sequence; positions
    restart at 0 at each, and no text may attend to another.
    """

    tokens: Tensor
    mask: Tensor
    loss_mask: Tensor
    positions: Tensor
    packed: bool

    def to(self, device) -> "SFTBatch":
        return _on(self, device)


@dataclass(slots=True, kw_only=True)
class PreferenceBatch:
    """Responses, each in one row after its prompt, with all pairs of a prompt (IG 3.5).

    tokens, mask (N, T), right-padded. lengths (N,): response tokens. pairs (M, 2): rows of winner and
    loser. targets (M,): 1.0, or 0.5 for a tie. weights (M,): 1 / labelled pairs of the prompt.
    prompt_of (N,): the prompt of each row, counted from 0. index: of each prompt in its data set.
    """

    tokens: Tensor
    mask: Tensor
    lengths: Tensor
    pairs: Tensor
    targets: Tensor
    weights: Tensor
    prompt_of: Tensor
    num_prompts: int
    index: list[int] = field(default_factory=list)

    def to(self, device) -> "PreferenceBatch":
        return _on(self, device)


@dataclass(slots=True, kw_only=True)
class PromptBatch:
    """Prompts to answer. tokens, mask (B, P), left-padded. index: of each in its data set."""

    tokens: Tensor
    mask: Tensor
    index: list[int]

    def to(self, device) -> "PromptBatch":
        return _on(self, device)


@dataclass(slots=True, kw_only=True)
class Rollout:
    """Prompts with the policy's responses, and what all models computed of them when they were sampled.

    prompts, prompt_mask (B, P) left padded . responses, response_mask (B, R) right padded .
    logprobs, ref_logprobs, values, advantages, returns (B, R) . scores (B,) . finished (B,) bool
    """

    prompts: Tensor
    prompt_mask: Tensor
    responses: Tensor
    response_mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    scores: Tensor
    finished: Tensor

    @classmethod
    def unscored(
        cls,
        prompts: Tensor,
        prompt_mask: Tensor,
        responses: Tensor,
        response_mask: Tensor,
        finished: Tensor,
    ) -> "Rollout":
        """Return what was written, before any model has read it: log-probs, values, scores are 0."""
        blank = torch.zeros(responses.shape, device=responses.device)
        return cls(
            prompts=prompts,
            prompt_mask=prompt_mask,
            responses=responses,
            response_mask=response_mask,
            logprobs=blank,
            ref_logprobs=blank.clone(),
            values=blank.clone(),
            advantages=blank.clone(),
            returns=blank.clone(),
            scores=torch.zeros(len(responses), device=responses.device),
            finished=finished,
        )

    def to(self, device) -> "Rollout":
        return _on(self, device)

    def select(self, index: Tensor) -> "Rollout":
        """Return the rows of `index` (long or bool), in its order, with all columns."""
        return Rollout(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def trim(self) -> "Rollout":
        """Return the rollout without columns that are all pads: left of prompts, right of responses."""
        start = int((~self.prompt_mask.any(dim=0)).long().cumprod(dim=0).sum())
        used = self.response_mask.any(dim=0)
        stop = used.shape[0] - int((~used.flip(0)).long().cumprod(dim=0).sum())
        names = (
            "responses", "response_mask", "logprobs", "ref_logprobs", "values", "advantages", "returns",
        )  # fmt: skip
        return replace(
            self,
            prompts=self.prompts[:, start:],
            prompt_mask=self.prompt_mask[:, start:],
            **{name: getattr(self, name)[:, :stop] for name in names},
        )


def joined(rollouts: Sequence[Rollout], pad_id: int) -> Rollout:
    """Return the rows of several rollouts as one, with columns of pads where others are wider."""
    prompts, responses = (
        max(getattr(one, name).shape[1] for one in rollouts) for name in ("prompts", "responses")
    )

    def wide(one: Rollout, name: str) -> Tensor:
        x, fill = getattr(one, name), pad_id if name in ("prompts", "responses") else 0
        if x.ndim == 1:
            return x
        if name in ("prompts", "prompt_mask"):
            return pad(x, (prompts - x.shape[1], 0), value=fill)
        return pad(x, (0, responses - x.shape[1]), value=fill)

    names = (f.name for f in fields(Rollout))
    return Rollout(**{name: torch.cat([wide(one, name) for one in rollouts]) for name in names})

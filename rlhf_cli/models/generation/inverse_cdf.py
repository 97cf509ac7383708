"""Sampling one token per row from a softmax by inverting its distribution function.

The random numbers are arguments, one per row.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 64  # tokens of the vocabulary whose sum is one step of the coarse distribution function
LEAST = -1e4  # finite stand-in for -inf: its exp is 0, and 0 times it is 0, not nan


def sample_token(logits: Tensor, uniform: Tensor, *, temperature: float) -> Tensor:
    """Return one token per row, drawn from softmax(logits / temperature).

    Temperature 0 takes the likeliest token. logits (B, V), uniform (B,) in [0, 1) -> (B,)
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).to(uniform.dtype).cumsum(-1)
    level = uniform[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, level, right=True)
    return chosen.squeeze(1).clamp_(max=logits.shape[-1] - 1)


def sample_and_score(
    logits: Tensor, uniform: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return one token per row as `sample_token` does, its log-prob and the entropy of its distribution.

    Inverts in two levels, first the token's block and then its position there, so that only one block per
    row is summed in double precision. At temperature 0 log-probs and entropies are 0.
    logits (B, V), uniform (B,) -> tokens (B,), logprobs (B,) and entropies (B,) in float32, nats
    """
    if temperature == 0:
        certain = logits.new_zeros(len(logits), dtype=torch.float32)
        return logits.argmax(-1), certain, certain
    wide = logits.float() / temperature
    below = wide.sub_(wide.amax(-1, keepdim=True)).clamp_(min=LEAST)
    weights = below.exp()
    blocks = pad(weights, (0, -weights.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    coarse = blocks.sum(-1).to(uniform.dtype).cumsum(-1)
    block, share = _invert(coarse, uniform[:, None])
    fine = blocks.gather(1, block[..., None].expand(-1, 1, BLOCK)).squeeze(1)
    place, _ = _invert(fine.to(uniform.dtype).cumsum(-1), share)
    tokens = (block * BLOCK + place).clamp_(max=logits.shape[-1] - 1)
    # With m the largest logit and Z = sum exp(x - m): log p(i) = (x_i - m) - log Z, and the entropy
    # is log Z - sum p (x - m).
    mass = coarse[:, -1]
    logprobs = below.gather(1, tokens).squeeze(1) - mass.log()
    entropies = mass.log() - torch.linalg.vecdot(weights, below) / mass
    return tokens.squeeze(1), logprobs.float(), entropies.float()


def _invert(cumulative: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return the step in which `cumulative` passes this share of its total, and the share within that step.

    cumulative (B, n), share (B, 1) -> index (B, 1), share within (B, 1)
    """
    total = cumulative[:, -1:]
    # Strictly below the total, so that a last step without weight is never chosen.
    level = torch.minimum(share * total, total * (1 - torch.finfo(total.dtype).eps))
    index = torch.searchsorted(cumulative, level, right=True).clamp_(max=cumulative.shape[-1] - 1)
    below = cumulative.gather(1, (index - 1).clamp_(min=0)).masked_fill(index == 0, 0)
    return index, (level - below) / (cumulative.gather(1, index) - below)

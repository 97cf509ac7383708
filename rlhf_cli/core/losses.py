"""Losses over tokens: a masked sum over the token count of the whole optimizer step.

num_tokens counts the real tokens of all microbatches and all ranks together, so microbatches and
ranks add up to the one big batch; a mean per microbatch would not. The statistics are sums over
num_tokens too. The reward model's loss lives in preferences.py.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.core.masking import masked_sum, zero_pads

MAX_LOG_RATIO = 20.0  # exp() of more overflows to inf, and its gradient to nan, on the clipped side


@dataclass(slots=True, kw_only=True)
class PolicyLoss:
    """loss carries the gradient; clip_frac, approx_kl and ratio are detached shares of the step."""

    loss: Tensor
    clip_frac: Tensor
    approx_kl: Tensor
    ratio: Tensor


@dataclass(slots=True, kw_only=True)
class ValueLoss:
    """loss carries the gradient; clip_frac is a detached share of the step."""

    loss: Tensor
    clip_frac: Tensor


def lm_loss(logprobs: Tensor, mask: Tensor, *, num_tokens: float | Tensor) -> Tensor:
    """Return the negative log-likelihood of the tokens in the mask, each with weight 1/num_tokens."""
    return -masked_sum(logprobs, mask) / num_tokens


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_eps: float,
    num_tokens: float | Tensor,
) -> PolicyLoss:
    """Return the clipped surrogate loss (Schulman 1707.06347, N+ ppo.py:750).

    It has no gradient where the ratio left [1 - eps, 1 + eps] on the side that the advantage rewards, and
    the plain policy gradient elsewhere. all (B, R) -> scalars. approx_kl = mean of log_ratio^2 / 2
    """
    log_ratio = zero_pads(logprobs - old_logprobs, mask)
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_eps, 1 + clip_eps)
    return PolicyLoss(
        loss=masked_sum(torch.maximum(plain, clipped), mask) / num_tokens,
        clip_frac=masked_sum((clipped > plain).float(), mask) / num_tokens,
        approx_kl=masked_sum(0.5 * log_ratio.detach().square(), mask) / num_tokens,
        ratio=masked_sum(ratio.detach(), mask) / num_tokens,
    )


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip_eps: float | None,
    num_tokens: float | Tensor,
) -> ValueLoss:
    """Return half the squared error to the returns, clipped (ZG, N+ ppo.py:739).

    The error is that of the value or of the value clamped to within clip_eps of the old one, whichever is
    larger; clip_eps None: no clamping. all (B, R) -> scalars
    """
    values, old_values, returns = (zero_pads(x, mask) for x in (values, old_values, returns))
    error = (values - returns).square()
    worse = error
    if clip_eps is not None:
        near_old = torch.clamp(values, old_values - clip_eps, old_values + clip_eps)
        worse = torch.maximum(error, (near_old - returns).square())
    return ValueLoss(
        loss=0.5 * masked_sum(worse, mask) / num_tokens,
        clip_frac=masked_sum((worse > error).float(), mask) / num_tokens,
    )

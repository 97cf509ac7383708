"""Losses over tokens: a masked sum over the token count of the whole optimizer step.

num_tokens counts the real tokens of all microbatches and all ranks together, so microbatches and
ranks add up to the one big batch; a mean per microbatch would not. The statistics are sums over
num_tokens too. The reward model's loss lives in preferences.py.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.core.kl import ESTIMATORS
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


def importance_ratios(
    logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, by_sequence: bool = False
) -> tuple[Tensor, Tensor]:
    """Return log-ratios and ratios of the policy to the one that sampled.

    by_sequence: each token has that of its response, exp(mean log-ratio) (GSPO, 2507.18071).
    all (B, R) -> two (B, R), 0 and 1 at pads
    """
    log_ratio = zero_pads(logprobs - old_logprobs, mask)
    if by_sequence:
        mean = log_ratio.sum(1) / mask.sum(1).clamp(min=1)
        log_ratio = zero_pads(mean[:, None].expand_as(log_ratio), mask)
    return log_ratio, log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def token_weights(
    mask: Tensor, *, average: str, num_responses: float | Tensor, num_tokens: float | Tensor
) -> Tensor:
    """Return each token's weight in a loss; num_responses and num_tokens are those of the whole step.

    average: sum (1 / responses: tokens are summed, responses averaged) | mean (1 / responses / tokens of
    its own response: GRPO) | token (1 / tokens: DAPO). mask (B, R) -> (B, R), 0 at pads
    """
    if average == "sum":
        return mask / num_responses
    if average == "mean":
        return mask / mask.sum(1, keepdim=True).clamp(min=1) / num_responses
    if average == "token":
        return mask / num_tokens
    raise ValueError(f"average {average!r} is none of sum, mean, token")


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_eps: float,
    num_tokens: float | Tensor,
    clip_eps_high: float | None = None,
    by_sequence: bool = False,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """Return the clipped surrogate loss (Schulman 1707.06347, N+ ppo.py:750).

    It has no gradient where the ratio left [1 - eps, 1 + eps] on the side that the advantage rewards, and
    the plain policy gradient elsewhere. clip_eps_high: the upper eps, where it is another (DAPO).
    by_sequence: see importance_ratios. weights: of the tokens in the loss, else 1 / num_tokens.
    all (B, R) -> scalars. approx_kl = mean of log_ratio^2 / 2
    """
    log_ratio, ratio = importance_ratios(logprobs, old_logprobs, mask, by_sequence=by_sequence)
    plain = -advantages * ratio
    high = clip_eps if clip_eps_high is None else clip_eps_high
    clipped = -advantages * ratio.clamp(1 - clip_eps, 1 + high)
    worse = torch.maximum(plain, clipped)
    whole = masked_sum(worse, mask) / num_tokens if weights is None else (weights * worse).sum()
    return PolicyLoss(
        loss=whole,
        clip_frac=masked_sum((clipped > plain).float(), mask) / num_tokens,
        approx_kl=masked_sum(0.5 * log_ratio.detach().square(), mask) / num_tokens,
        ratio=masked_sum(ratio.detach(), mask) / num_tokens,
    )


def kl_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    *,
    estimator: str,
    weights: Tensor,
    ratio: Tensor | None = None,
) -> Tensor:
    """Return the weighted sum of a KL estimate per token, as a term of the loss.

    On samples of the policy itself its gradient is, on average: without `ratio` that of KL(policy || ref)
    for k2, of KL(ref || policy) for k3, none for k1; with the ratio, through which the gradient flows,
    that of KL(policy || ref) for k1 and k3 (2506.09477). all (B, R) -> scalar
    """
    gap = zero_pads(ref_logprobs - logprobs, mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    estimate = ESTIMATORS[estimator](-gap, torch.zeros_like(gap))
    return (weights * (estimate if ratio is None else ratio * estimate)).sum()


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

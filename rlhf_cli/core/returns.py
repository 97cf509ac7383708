"""Rewards, returns and advantages per token from one score per response."""

import torch
from torch import Tensor

from rlhf_cli.core.kl import k1
from rlhf_cli.core.masking import last_true_index, zero_pads


def missing_eos(scores: Tensor, finished: Tensor, *, mode: str, value: float) -> Tensor:
    """Return the scores, changed for responses without an end token and for no others.

    mode: none | replace (score := value, N+) | subtract (score -= value, TRL). Apply it after the
    reward model's bias shift: a constant is only meaningful on a fixed scale. scores, finished (B,)
    """
    if mode == "none":
        return scores
    if mode == "replace":
        return torch.where(finished, scores, torch.full_like(scores, value))
    if mode == "subtract":
        return torch.where(finished, scores, scores - value)
    raise ValueError(f"missing_eos mode {mode!r} is none of none, replace, subtract")


def shaped_rewards(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float
) -> Tensor:
    """Return per-token rewards: minus the KL penalty on every token, plus the score on the last one.

    Padding earns exactly zero, so more padding never changes a return (IG Eq. 2, k1 per token).
    scores (B,), logprobs, ref_logprobs, mask (B, R) -> rewards (B, R)
    """
    rewards = zero_pads(-kl_coef * k1(logprobs, ref_logprobs), mask)
    last = last_true_index(mask)[:, None]
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def response_rewards(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float
) -> Tensor:
    """Return the score of each response minus kl_coef times the sum of k1 over its tokens.

    scores (B,), logprobs, ref_logprobs, mask (B, R) -> rewards (B,)
    """
    return scores - kl_coef * zero_pads(k1(logprobs, ref_logprobs), mask).sum(1)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Return generalised advantages, and returns = advantages + values; the value after the end is 0.

    Source: Schulman 1506.02438, N+ ppo.py:693.

    rewards, values, mask (B, R), real tokens first -> advantages, returns (B, R), zero at pads
    """
    rewards, values = zero_pads(rewards, mask), zero_pads(values, mask)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = zero_pads(delta + gamma * gae_lambda * next_advantage, mask[:, t])
        advantages[:, t] = next_advantage
        next_value = values[:, t]
    return advantages, advantages + values

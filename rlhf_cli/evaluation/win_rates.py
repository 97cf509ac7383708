"""Win rates of one model's answers over another's to the same prompts, plain and length-controlled.

Length control fits logit P(win) = a + b tanh(d / sd(d)), with d the difference in tokens, and reports
sigmoid(a): the win rate at equal length. It has AlpacaEval 2's length term but not its terms of the
models and of each prompt's difficulty, so the two numbers are not the same (2404.04475).
"""

import torch
from torch import Tensor

from rlhf_cli.core.bootstrap import Interval, bootstrap, mean_bootstrap, percentile_interval

RIDGE = 1e-3  # on b: without it a perfect separation by length has no optimum
PRIOR = 1e-6  # on a, for the same reason where one side wins every time
NEWTON_STEPS, TOLERANCE = 25, 1e-6


def outcomes(ours: Tensor, theirs: Tensor, same: Tensor) -> Tensor:
    """Return 1 for a win, 0 for a loss and 1/2 for a tie, (n,) float64.

    ours, theirs (n,): a judge's values. same (n,) bool: equal answers, a tie even if their values,
    computed in different batches, differ by rounding.
    """
    tied = (same | (ours == theirs)).double()
    return (ours > theirs).double() * (1 - tied) + 0.5 * tied


def win_rate(outcome: Tensor, *, seed: int) -> Interval:
    """Return the mean outcome (n,) with its paired bootstrap interval over prompts."""
    return mean_bootstrap(outcome, seed=seed)


def length_controlled(outcome: Tensor, difference: Tensor, *, seed: int) -> Interval:
    """Return the win rate at equal length, with its paired bootstrap interval over prompts.

    outcome (n,) in [0, 1] . difference (n,): tokens, ours minus theirs. Where all lengths are equal
    it is the plain win rate.
    """
    spread = difference.double().std(correction=0)
    if spread == 0:
        return win_rate(outcome, seed=seed)
    outcome, feature = outcome.double(), torch.tanh(difference / spread)
    value = rate_at_zero(outcome[None], feature[None]).item()
    resampled = bootstrap(
        lambda index: rate_at_zero(outcome[index], feature[index]), len(outcome), seed=seed
    )
    return percentile_interval(value, resampled)


def rate_at_zero(outcome: Tensor, feature: Tensor) -> Tensor:
    """Return sigmoid(a) of the fits by Newton's method; outcome, feature (b, n) float64 -> (b,)."""
    a, b = outcome.new_zeros(len(outcome)), outcome.new_zeros(len(outcome))
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(a[:, None] + b[:, None] * feature)
        left, weight = outcome - p, p * (1 - p)
        grad_a, grad_b = left.sum(1) - PRIOR * a, (left * feature).sum(1) - RIDGE * b
        aa, bb = weight.sum(1) + PRIOR, (weight * feature**2).sum(1) + RIDGE
        ab = (weight * feature).sum(1)
        scale = aa * bb - ab**2
        # A step of at most 2 keeps the fit of a nearly separated sample from overshooting.
        step_a = ((bb * grad_a - ab * grad_b) / scale).clamp(-2, 2)
        step_b = ((aa * grad_b - ab * grad_a) / scale).clamp(-2, 2)
        a, b = a + step_a, b + step_b
        if max(step_a.abs().max(), step_b.abs().max()) < TOLERANCE:
            break
    return torch.sigmoid(a)

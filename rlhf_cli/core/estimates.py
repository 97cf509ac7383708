"""Estimates with their uncertainty: intervals, accuracies, calibration, the KL of best-of-n."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from rlhf_cli.core.means import student_quantile


def mean_interval(x: Tensor, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean and its Student interval, which covers the true mean with `confidence` for normal x.

    x (n,) -> mean, low, high; for a single observation (x, -inf, inf)
    """
    n, x = x.numel(), x.double()
    if n == 0:
        raise ValueError("mean_interval of no observations")
    mean = x.mean().item()
    if n == 1:
        return mean, -math.inf, math.inf
    half = student_quantile(confidence, n - 1) * x.std().item() / math.sqrt(n)
    return mean, mean - half, mean + half


def ratio_interval(
    sums: Tensor, counts: Tensor, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return sum of sums / sum of counts over independent groups, and its interval by linearization.

    A mean per token over responses of any length, where the tokens of a group are alike. sums, counts (n,)
    """
    sums, counts = sums.double(), counts.double()
    ratio = sums.sum() / counts.sum()
    return mean_interval(ratio + (sums - ratio * counts) / counts.mean(), confidence)


def wilson_interval(
    successes: float, n: float, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the share of successes and its Wilson score interval, which stays within [0, 1].

    -> share, low, high. A tie may count as half a success; n may be an effective number of trials.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"wilson_interval of {successes} successes in {n} trials")
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def correlation(x: Tensor, y: Tensor) -> float:
    """Return Pearson's r, in [-1, 1]; nan when either is constant. x, y (n,)"""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    scale = x.norm() * y.norm()
    return (x @ y / scale).clamp(-1, 1).item() if scale > 0 else math.nan


def pair_accuracy(scores: Tensor, pairs: Tensor) -> float:
    """Return the share of pairs whose winner scores strictly higher: a tie is wrong (N+ reward.py:410).

    scores (N,) . pairs (M, 2) winner, loser
    """
    return (scores[pairs[:, 0]] > scores[pairs[:, 1]]).double().mean().item()


@dataclass(slots=True, kw_only=True)
class CalibrationRow:
    """Predictions in [low, high): their number, mean confidence and accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration(
    prob: Tensor, outcome: Tensor, bins: int = 10
) -> tuple[list[CalibrationRow], float]:
    """Return the bins of [0, 1] that are not empty, and ECE = sum of count/n |accuracy - confidence|.

    prob (n,) in [0, 1] . outcome (n,) 0, 1 or a share
    """
    prob, outcome = prob.double(), outcome.double()
    place = (prob * bins).long().clamp(0, bins - 1)
    rows = []
    for i in place.unique().tolist():
        inside = place == i
        promised, seen = prob[inside].mean().item(), outcome[inside].mean().item()
        rows.append(
            CalibrationRow(
                low=i / bins,
                high=(i + 1) / bins,
                count=int(inside.sum()),
                confidence=promised,
                accuracy=seen,
            )
        )
    gaps = sum(row.count * abs(row.accuracy - row.confidence) for row in rows)
    return rows, gaps / prob.numel()


def bon_kl(n: int) -> float:
    """Return the KL in nats of best-of-n to its base; with ties an upper bound (2401.01879)."""
    return math.log(n) - (n - 1) / n


def best_of_n_estimate(proxy: Tensor, values: Tensor, n: int) -> Tensor:
    """Return the expected value of the response with the best proxy score out of n, without bias.

    The mean over all subsets of n of the N samples: with these in the order of their proxy scores the
    i-th is the best of C(i - 1, n - 1) of C(N, n) subsets (2112.09332, appendix I). Samples of equal
    proxy score share their weights. proxy, values (P, N) -> (P,)
    """
    num = proxy.shape[1]
    if not 1 <= n <= num:
        raise ValueError(f"best of {n} of {num} samples")
    whole = math.comb(num, n)
    shares = [math.comb(i, n - 1) / whole for i in range(num)]
    ordered, order = proxy.sort(dim=1)
    weights = torch.tensor(shares, dtype=torch.float64).expand(len(proxy), num)
    group = torch.zeros_like(order)  # of equal proxy scores, counted from 0
    group[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(1)
    blank = torch.zeros_like(weights)
    sums = blank.scatter_add(1, group, weights)
    sizes = blank.scatter_add(1, group, torch.ones_like(weights))
    weights = (sums / sizes.clamp(min=1)).gather(1, group)
    return (weights * values.double().gather(1, order)).sum(1)


@torch.no_grad()
def ema_update_(average: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """Update average <- decay * average + (1 - decay) * current in place, per tensor (IG: 0.992)."""
    for mean, new in zip(average, current, strict=True):
        mean.lerp_(new.to(mean.dtype), 1 - decay)

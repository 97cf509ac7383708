"""The bootstrap: how a statistic of n prompts varies over samples of n prompts, drawn with replacement."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_cli.core.randomness import stream

RESAMPLES = 2000
AT_ONCE = 1 << 21  # indices that are held in memory

Interval = tuple[float, float, float]


def bootstrap(statistic: Callable[[Tensor], Tensor], n: int, *, seed: int) -> Tensor:
    """Return the statistic of every resample, (RESAMPLES,).

    statistic: indices (b, n) of b resamples -> (b,). The resamples depend on n and the seed alone, so
    two statistics of the same prompts may be subtracted: their difference is paired.
    """
    drawn, size = stream(seed, "bootstrap", n), max(1, AT_ONCE // n)
    parts = [
        statistic(torch.randint(n, (min(size, RESAMPLES - done), n), generator=drawn))
        for done in range(0, RESAMPLES, size)
    ]
    return torch.cat(parts)


def percentile_interval(value: float, resampled: Tensor, confidence: float = 0.95) -> Interval:
    """Return the value with the percentiles of its resamples as its interval."""
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = resampled.double().quantile(ends).tolist()
    return value, min(value, low), max(value, high)


def mean_bootstrap(values: Tensor, *, seed: int) -> Interval:
    """Return the mean of values (n,) and its bootstrap interval; of paired differences a paired one."""
    values = values.double()
    resampled = bootstrap(lambda index: values[index].mean(1), len(values), seed=seed)
    return percentile_interval(values.mean().item(), resampled)

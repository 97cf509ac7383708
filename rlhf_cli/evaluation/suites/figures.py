"""Figures of suites: means and shares with their intervals, in the one form of results.json."""

import math

from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.core.bootstrap import mean_bootstrap
from rlhf_cli.core.estimates import wilson_interval

PART, SEED = "suites", 0


def mean_figure(measure: str, values: Tensor, **names: str | None) -> Figure:
    """Return the mean of values (n,) with its bootstrap interval, which stays within their range.

    One value alone has none.
    """
    count = len(values)
    mean = (values.mean().item(), -math.inf, math.inf)
    interval = mean_bootstrap(values, seed=SEED) if count > 1 else mean
    return Figure.of(interval, part=PART, measure=measure, count=count, **names)


def share_figure(measure: str, successes: Tensor, **names: str | None) -> Figure:
    """Return the share of successes (n,) bool, with Wilson's interval."""
    count = len(successes)
    interval = wilson_interval(int(successes.sum()), count)
    return Figure.of(interval, part=PART, measure=measure, count=count, **names)


def plain_figure(measure: str, value: float, count: int, **names: str | None) -> Figure:
    """Return a figure without an interval."""
    return Figure(part=PART, measure=measure, value=value, count=count, **names)

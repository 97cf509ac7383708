"""Figures of suites: means and shares with their intervals, in the one form of results.json."""

import math

from torch import Tensor

from rlhf_cli.artifacts.results import Figure, Interval
from rlhf_cli.core.estimates import mean_interval, wilson_interval

PART = "suites"


def mean_figure(measure: str, values: Tensor, **names: str | None) -> Figure:
    """Return the mean of values (n,) with Student's interval; one value alone has none."""
    return _figure(measure, mean_interval(values), len(values), names)


def share_figure(measure: str, successes: Tensor, **names: str | None) -> Figure:
    """Return the share of successes (n,) bool, with Wilson's interval."""
    count = len(successes)
    return _figure(measure, wilson_interval(int(successes.sum()), count), count, names)


def plain_figure(measure: str, value: float, count: int, **names: str | None) -> Figure:
    """Return a figure without an interval."""
    return Figure(part=PART, measure=measure, value=value, count=count, **names)


def _figure(measure: str, interval: Interval, count: int, names: dict[str, str | None]) -> Figure:
    value, low, high = interval
    known = math.isfinite(low) and math.isfinite(high)
    return Figure(
        part=PART,
        measure=measure,
        value=value,
        low=low if known else None,
        high=high if known else None,
        count=count,
        **names,
    )

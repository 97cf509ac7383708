"""Detection of NaN and infinity, in one pass without a copy."""

from collections.abc import Iterable
from math import isfinite

import torch
from torch import Tensor


def is_finite(values: Tensor) -> bool:
    """Return whether no element is NaN or infinite; integers and empty tensors are finite."""
    if not values.is_floating_point() or not values.numel():
        return True
    return all(isfinite(float(end)) for end in torch.aminmax(values.detach()))


def not_finite(named: Iterable[tuple[str, Tensor]]) -> tuple[str, str] | None:
    """Return the name of the first tensor that is not finite, and what it holds."""
    for name, values in named:
        if not is_finite(values):
            return name, "NaN" if torch.isnan(values).any() else "an infinite number"
    return None

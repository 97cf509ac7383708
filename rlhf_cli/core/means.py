"""Means of known values, of sets of items, and Student's t for their intervals. Plain numbers: no torch."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist

MANY = 200  # degrees of freedom from which Student's quantile is taken from its expansion


def student_mass(t: float, dof: int) -> float:
    """Return P(|T| < t), exact for integer degrees of freedom (Abramowitz & Stegun 26.7.3, 4)."""
    angle = math.atan(t / math.sqrt(dof))
    term, total, odd = 1.0, 0.0, dof % 2
    for k in range(dof // 2):
        total += term
        term *= math.cos(angle) ** 2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)


def student_quantile(confidence: float, dof: int) -> float:
    """Return the t with P(|T| < t) = confidence."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    if dof >= MANY:  # Abramowitz & Stegun 26.7.5
        return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
    low, high = 0.0, 1.0
    while student_mass(high, dof) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_mass(middle, dof) < confidence else (low, middle)
    return high


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known; None without one."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def members(items: Iterable[str], sets_of: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return {set: its items}, of the sets that each item is in."""
    listed = list(items)
    names = dict.fromkeys(name for item in listed for name in sets_of[item])
    return {name: [item for item in listed if name in sets_of[item]] for name in names}


def mean_weights(sets: Sequence[Sequence[str]]) -> Counter[str]:
    """Return the weight of each item in the mean over sets of the means over their items."""
    weights: Counter[str] = Counter()
    for some in sets:
        for item in some:  # one of several sets counts in each
            weights[item] += 1 / (len(sets) * len(some))
    return weights

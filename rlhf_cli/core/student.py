"""Student's t distribution, for intervals of means. Plain numbers: no torch."""

import math
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

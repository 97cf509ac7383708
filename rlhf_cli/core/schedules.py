"""Learning-rate schedules."""

import math

KINDS = ("constant", "linear", "cosine")


def learning_rate_factor(
    step: int, *, num_steps: int, kind: str, warmup_steps: int, final: float
) -> float:
    """Return the learning rate's share of its peak: 1/w, ..., 1 over w warm-up steps, then down to `final`.

    step counts from 0 and is the next one; `final` is reached after all num_steps, so a linear fall to
    0 is N+'s 1 - (u - 1)/N. kind: constant | linear | cosine
    """
    if kind not in KINDS:
        raise ValueError(f"schedule kind {kind!r} is none of {', '.join(KINDS)}")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    if kind == "constant":
        return 1.0
    if kind == "linear":
        return 1 - (1 - final) * done
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

"""What the sections of all training stages have: `batch`, `optim`, `schedule`."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from rlhf_cli.config.schema.constraints import not_negative, positive, require, within


class ScheduleKind(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


@dataclass(slots=True, kw_only=True)
class Batch:
    size: int
    microbatch: int | None
    max_tokens: int | None

    def __post_init__(self):
        positive(self, "size")
        limit_forward_pass(self)


def limit_forward_pass(batch: Any) -> None:
    """Require a limit of a forward pass by rows (`microbatch`), by tokens (`max_tokens`), or by both."""
    positive(batch, "microbatch", "max_tokens")
    is_limited = batch.microbatch is not None or batch.max_tokens is not None
    text = "and .max_tokens=null: one must limit a forward pass"
    require(batch, "microbatch", is_limited, text)


@dataclass(slots=True, kw_only=True)
class Optim:
    lr: float
    betas: list[float]
    eps: float
    weight_decay: float
    grad_clip: float | None

    def __post_init__(self):
        positive(self, "lr", "eps", "grad_clip")
        not_negative(self, "weight_decay")
        are_decays = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(self, "betas", are_decays, "must be two numbers in [0, 1)")


@dataclass(slots=True, kw_only=True)
class Schedule:
    kind: ScheduleKind
    warmup: float
    final: float

    def __post_init__(self):
        within(self, "[0, 1]", "warmup", unit="share of the steps")
        within(self, "[0, 1]", "final", unit="share of the peak")

"""Section `reward`: how the scores of several reward models become one."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import not_negative


class Combine(Enum):
    mean = "mean"
    worst = "worst"
    penalised = "penalised"


@dataclass(slots=True, kw_only=True)
class Reward:
    combine: Combine
    penalty: float

    def __post_init__(self):
        not_negative(self, "penalty")

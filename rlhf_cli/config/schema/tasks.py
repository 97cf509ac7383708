"""Section `tasks`: instruction tuning on the tasks of task files, with some of their types held out."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import positive, require, within

MOST_SHOTS = 64


class ShotsAs(Enum):
    text = "text"
    turns = "turns"


@dataclass(slots=True, kw_only=True)
class Tasks:
    files: list[str]
    folder: str | None
    hold_out: list[str]
    train: list[str]
    exclusive: list[list[str]]
    examples: int
    cap: int
    rate: int
    templates: int
    options: float
    shots: list[int]
    shots_as: ShotsAs
    cot: float

    def __post_init__(self):
        positive(self, "examples", "cap", "rate", "templates")
        within(self, "[0, 1]", "options", "cot")
        numbers = bool(self.shots) and all(0 <= n <= MOST_SHOTS for n in self.shots)
        text = f"must be numbers of exemplars from 0 to {MOST_SHOTS}, as in [0, 2]"
        require(self, "shots", numbers, text)
        groups = all(len(set(group)) > 1 for group in self.exclusive)
        require(self, "exclusive", groups, "must be groups of two or more clusters")

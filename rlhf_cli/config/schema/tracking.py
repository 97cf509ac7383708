"""Section `tracking`: where metrics are written."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import not_negative, positive, require


class Tracker(Enum):
    tensorboard = "tensorboard"
    wandb = "wandb"
    trackio = "trackio"


@dataclass(slots=True, kw_only=True)
class Tracking:
    every: int
    trackers: list[Tracker]
    project: str
    price_per_hour: float | None

    def __post_init__(self):
        positive(self, "every")
        not_negative(self, "price_per_hour")
        require(self, "project", bool(self.project), "must be a name")

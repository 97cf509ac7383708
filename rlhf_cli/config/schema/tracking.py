"""Section `tracking`: where metrics are written."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import positive, require


class Tracker(Enum):
    tensorboard = "tensorboard"
    wandb = "wandb"
    trackio = "trackio"


@dataclass(slots=True, kw_only=True)
class Tracking:
    every: int
    trackers: list[Tracker]
    project: str

    def __post_init__(self):
        positive(self, "every")
        require(self, "project", bool(self.project), "must be a name")

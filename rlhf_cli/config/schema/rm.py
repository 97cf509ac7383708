"""Section `rm`: the reward model."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from rlhf_cli.config.schema.constraints import not_negative, positive, require, within
from rlhf_cli.config.schema.training import Batch, Optim, Schedule


class Ties(Enum):
    drop = "drop"
    soft = "soft"
    rao_kupper = "rao_kupper"
    davidson = "davidson"


@dataclass(slots=True, kw_only=True)
class RM:
    members: int
    epochs: int
    max_steps: int | None
    batch: Batch
    ties: Ties
    tie_param: float
    margin: float
    label_smoothing: float
    center_coef: float
    dropout: float
    optim: Optim
    schedule: Schedule

    def __post_init__(self):
        positive(self, "members", "epochs", "max_steps")
        not_negative(self, "margin", "center_coef")
        within(self, "[0, 0.5)", "label_smoothing")
        within(self, "[0, 1)", "dropout")
        require_tie_model(self)


def require_tie_model(section: Any) -> None:
    """Require what a model of ties needs of its section."""
    if section.ties is Ties.rao_kupper:
        within(section, "(1, inf)", "tie_param", unit="theta of Rao-Kupper")
    if section.ties is Ties.davidson:
        positive(section, "tie_param", unit="nu of Davidson")
    if section.ties in (Ties.rao_kupper, Ties.davidson):
        text = "models ties itself: set .margin=0 and .label_smoothing=0"
        require(section, "ties", section.margin == section.label_smoothing == 0, text)

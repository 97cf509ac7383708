"""Section `sft`: supervised fine-tuning."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import positive, require, within
from rlhf_cli.config.schema.training import Batch, Optim, Schedule


class Batching(Enum):
    grouped = "grouped"
    packed = "packed"


class LossOn(Enum):
    response = "response"
    all = "all"


class SelectBy(Enum):
    last = "last"
    eval_loss = "eval_loss"
    rm_score = "rm_score"


@dataclass(slots=True, kw_only=True)
class SFT:
    epochs: int
    max_steps: int | None
    batch: Batch
    batching: Batching
    loss_on: LossOn
    dropout: float
    optim: Optim
    schedule: Schedule
    select_by: SelectBy
    reward_model: str | None

    def __post_init__(self):
        positive(self, "epochs", "max_steps")
        within(self, "[0, 1)", "dropout")
        if self.select_by is SelectBy.rm_score:
            needed = "needs .reward_model=<folder of a reward model>"
            require(self, "select_by", self.reward_model is not None, needed)

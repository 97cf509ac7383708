"""Section `dpo`: learning a policy from comparisons directly, without a reward model or samples."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import not_negative, positive, require, within
from rlhf_cli.config.schema.rm import Ties, require_tie_model
from rlhf_cli.config.schema.training import Batch, Optim, Schedule


class PairLoss(Enum):
    sigmoid = "sigmoid"
    ipo = "ipo"
    ipo_mean = "ipo_mean"
    robust = "robust"


@dataclass(slots=True, kw_only=True)
class DPO:
    epochs: int
    max_steps: int | None
    batch: Batch
    loss: PairLoss
    beta: float
    label_smoothing: float
    ties: Ties
    tie_param: float
    margin: float
    sft_coef: float
    optim: Optim
    schedule: Schedule

    def __post_init__(self):
        positive(self, "epochs", "max_steps", "beta")
        not_negative(self, "margin", "sft_coef")
        within(self, "[0, 0.5)", "label_smoothing")
        require_tie_model(self)
        if self.loss in (PairLoss.ipo, PairLoss.ipo_mean):
            text = (
                "has targets of its own: set .ties=drop or soft, .margin=0 and .label_smoothing=0"
            )
            known = self.ties in (Ties.drop, Ties.soft)
            require(self, "loss", known and self.margin == self.label_smoothing == 0, text)
        if self.loss is PairLoss.robust:
            text = "knows flipped labels, not ties: set .ties=drop and .margin=0"
            require(self, "loss", self.ties is Ties.drop and self.margin == 0, text)

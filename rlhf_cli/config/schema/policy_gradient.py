"""Sections `reinforce`, `rloo` and `grpo`: policy gradients without a value model."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import (
    ConstraintError,
    not_negative,
    positive,
    require,
    within,
)
from rlhf_cli.config.schema.ppo import (
    Alerts,
    KLStop,
    MissingEOS,
    OldLogprobs,
    RolloutBatch,
    Watch,
)
from rlhf_cli.config.schema.training import Optim, Schedule


class Baseline(Enum):
    none = "none"
    batch = "batch"
    running = "running"
    leave_one_out = "leave_one_out"
    group = "group"


class Scale(Enum):
    none = "none"
    group = "group"
    batch = "batch"


class Ratio(Enum):
    token = "token"
    sequence = "sequence"


class Average(Enum):
    sum = "sum"
    mean = "mean"
    token = "token"


class KLPlace(Enum):
    reward = "reward"
    loss = "loss"


class KLEstimator(Enum):
    k1 = "k1"
    k2 = "k2"
    k3 = "k3"


@dataclass(slots=True, kw_only=True)
class KLPenalty:
    coef: float
    place: KLPlace
    estimator: KLEstimator
    weighted: bool

    def __post_init__(self):
        not_negative(self, "coef")
        in_reward = self.place is KLPlace.reward
        k1, k2 = (self.estimator is one for one in (KLEstimator.k1, KLEstimator.k2))
        text = "is for .place=loss: inside the reward only k1 is right, set .estimator=k1"
        require(self, "estimator", k1 or not in_reward, text)
        text = "is for .place=loss: set .weighted=false"
        require(self, "weighted", not (self.weighted and in_reward), text)
        text = "has no gradient on average in .place=loss: set .weighted=true, or .estimator=k3"
        require(self, "estimator", in_reward or self.weighted or not k1, text)
        text = "spoils k2, which has the gradient of the KL without it: set .weighted=false"
        require(self, "weighted", not (self.weighted and k2), text)


@dataclass(slots=True, kw_only=True)
class PolicyGradient:
    total_episodes: int
    max_steps: int | None
    batch: RolloutBatch
    group: int
    baseline: Baseline
    scale: Scale
    ratio: Ratio
    average: Average
    inner_epochs: int
    temperature: float
    old_logprobs: OldLogprobs
    kl: KLPenalty
    missing_eos: MissingEOS
    clip_eps: float
    clip_eps_high: float | None
    skip_uniform: bool
    max_extra: int
    drop_unfinished: bool
    optim: Optim
    schedule: Schedule
    ema_decay: float | None
    kl_stop: KLStop
    alerts: Alerts
    watch: Watch

    def __post_init__(self):
        rollout = self.batch.rollout
        text = f"is less than one rollout (.batch.rollout={rollout})"
        require(self, "total_episodes", self.total_episodes >= rollout, text)
        positive(self, "max_steps", "group", "inner_epochs", "temperature", "clip_eps_high")
        whole = rollout % self.group == 0 and self.total_episodes % self.group == 0
        text = (
            "must divide .batch.rollout and .total_episodes: all responses to a prompt are together"
        )
        require(self, "group", whole, text)
        alone = "compares the responses to a prompt: set .group=2 or more"
        compares = self.baseline in (Baseline.leave_one_out, Baseline.group)
        require(self, "baseline", self.group > 1 or not compares, alone)
        require(self, "scale", self.group > 1 or self.scale is not Scale.group, alone)
        alone = "compares the responses of a rollout: set .batch.rollout=2 or more"
        several = rollout > 1 and self.total_episodes % rollout != 1
        require(self, "baseline", several or self.baseline is not Baseline.running, alone)
        require(self, "scale", several or self.scale is not Scale.batch, alone)
        text = "looks for groups of equal scores: set .group=2 or more"
        require(self, "skip_uniform", self.group > 1 or not self.skip_uniform, text)
        even = self.total_episodes % rollout == 0 or not self.skip_uniform
        text = f"is not a multiple of .batch.rollout={rollout}, which .skip_uniform=true needs"
        require(self, "total_episodes", even, text)
        text = "is the KL beyond which to stop, but .kl.coef=0 loads no reference to measure it"
        known = self.has_reference or self.kl_stop.run is None
        if not known:
            raise ConstraintError("kl_stop.run", self.kl_stop.run, text)
        within(self, "(0, 1)", "clip_eps", "ema_decay")
        not_negative(self, "max_extra")

    @property
    def has_reference(self) -> bool:
        return self.kl.coef > 0

    @property
    def effective_beta(self) -> float:
        """Return the weight of the KL beside rewards whose gradient the group's own mean shrinks.

        A mean that includes the response itself is (group - 1) / group of leave-one-out; a KL in the loss
        is not shrunk with it.
        """
        in_loss = self.kl.place is KLPlace.loss and self.baseline is Baseline.group
        return self.kl.coef * self.group / (self.group - 1) if in_loss else self.kl.coef

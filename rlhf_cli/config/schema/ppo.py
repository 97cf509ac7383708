"""Section `ppo`: reinforcement learning against the reward model."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import at_least, not_negative, positive, require, within
from rlhf_cli.config.schema.training import Optim, Schedule, limit_forward_pass


class KLController(Enum):
    fixed = "fixed"
    adaptive = "adaptive"


class MissingEOSMode(Enum):
    none = "none"
    replace = "replace"
    subtract = "subtract"


class ValueInit(Enum):
    rm = "rm"
    sft = "sft"


class OldLogprobs(Enum):
    auto = "auto"
    sampler = "sampler"
    recompute = "recompute"


@dataclass(slots=True, kw_only=True)
class RolloutBatch:
    rollout: int
    minibatch: int
    microbatch: int | None
    max_tokens: int | None

    def __post_init__(self):
        positive(self, "rollout", "minibatch")
        limit_forward_pass(self)
        text = f"is not a multiple of .minibatch={self.minibatch}"
        require(self, "rollout", self.rollout % self.minibatch == 0, text)


@dataclass(slots=True, kw_only=True)
class KL:
    coef: float
    controller: KLController
    target: float
    horizon: int

    def __post_init__(self):
        not_negative(self, "coef")
        positive(self, "target", "horizon")


@dataclass(slots=True, kw_only=True)
class MissingEOS:
    mode: MissingEOSMode
    value: float

    def __post_init__(self):
        if self.mode is MissingEOSMode.subtract:
            not_negative(self, "value", unit="it is subtracted")


@dataclass(slots=True, kw_only=True)
class PTX:
    coef: float
    ratio: int

    def __post_init__(self):
        not_negative(self, "coef")
        positive(self, "ratio")


@dataclass(slots=True, kw_only=True)
class KLStop:
    iteration: float | None
    run: float | None

    def __post_init__(self):
        positive(self, "iteration", "run")


@dataclass(slots=True, kw_only=True)
class Alerts:
    eos_rate: float | None
    length: float | None
    entropy: float | None
    kl: float | None
    score_std: float | None
    score_rms: float | None

    def __post_init__(self):
        within(self, "[0, 1]", "eos_rate", unit="share of the responses")
        within(self, "(1, inf)", "length", unit="factor")
        not_negative(self, "entropy", "kl", "score_std", "score_rms")


class WatchBy(Enum):
    auto = "auto"
    check = "check"
    score = "score"


@dataclass(slots=True, kw_only=True)
class Watch:
    every: int | None
    prompts: int
    by: WatchBy
    kl_budget: float | None

    def __post_init__(self):
        positive(self, "every", "kl_budget")
        at_least(self, 2, "prompts")


@dataclass(slots=True, kw_only=True)
class PPO:
    total_episodes: int
    max_steps: int | None
    batch: RolloutBatch
    inner_epochs: int
    temperature: float
    old_logprobs: OldLogprobs
    kl: KL
    missing_eos: MissingEOS
    gamma: float
    gae_lambda: float
    clip_eps: float
    value_clip_eps: float | None
    vf_coef: float
    whiten_rewards: bool
    whiten_advantages: bool
    value_init: ValueInit
    optim: Optim
    value_optim: Optim
    schedule: Schedule
    ema_decay: float | None
    ptx: PTX
    kl_stop: KLStop
    alerts: Alerts
    watch: Watch

    def __post_init__(self):
        text = f"is less than one rollout (.batch.rollout={self.batch.rollout})"
        require(self, "total_episodes", self.total_episodes >= self.batch.rollout, text)
        positive(self, "max_steps", "inner_epochs", "temperature", "value_clip_eps")
        within(self, "(0, 1]", "gamma")
        within(self, "[0, 1]", "gae_lambda")
        within(self, "(0, 1)", "clip_eps", "ema_decay")
        not_negative(self, "vf_coef")

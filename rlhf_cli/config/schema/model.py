"""Section `model`: the pretrained model, and the learning rates that suit its size."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class LearningRates:
    sft: float
    rm: float
    policy: float
    value: float


@dataclass(slots=True, kw_only=True)
class Model:
    path: str
    revision: str | None
    tokenizer: str | None
    trust_remote_code: bool
    attention: str
    gradient_checkpointing: bool
    lr: LearningRates

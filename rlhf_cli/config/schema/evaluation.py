"""Section `evaluation`: the final comparison of base model, SFT, PPO and best-of-n."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import at_least, not_negative, positive, require

MOST_SHOTS = 64
NLI_LABELS = ("contradiction", "entailment", "neutral")  # of evaluation.diversity.nli, by name


class Rank(Enum):
    sum = "sum"
    token = "token"
    byte = "byte"
    prior = "prior"


class Chains(Enum):
    auto = "auto"
    all = "all"
    none = "none"


@dataclass(slots=True, kw_only=True)
class TaskEvaluation:
    also: list[str]
    shots: list[int]
    templates: str
    limit: int | None
    rank: Rank
    cot: Chains
    samples: int
    temperature: float

    def __post_init__(self):
        numbers = bool(self.shots) and all(0 <= n <= MOST_SHOTS for n in self.shots)
        text = f"must be numbers of exemplars from 0 to {MOST_SHOTS}, as in [0, 3]"
        require(self, "shots", numbers, text)
        require(self, "shots", len(set(self.shots)) == len(self.shots), "has a number twice")
        counted = self.templates.isdecimal() and int(self.templates) > 0
        require(self, "templates", self.templates == "all" or counted, "must be all or a number")
        positive(self, "limit", "samples")
        # Several greedy answers to one question are all the same.
        text = "must be positive, or .samples=1"
        require(self, "temperature", self.temperature > 0 or self.samples == 1, text)
        not_negative(self, "temperature")


@dataclass(slots=True, kw_only=True)
class Diversity:
    inputs: int
    samples: int
    vocab: int
    embedder: str | None
    nli: str | None

    def __post_init__(self):
        at_least(self, 2, "inputs", "vocab")
        not_negative(self, "samples")
        require(self, "samples", self.samples != 1, "must be at least 2, or 0: no diversity")


@dataclass(slots=True, kw_only=True)
class Evaluation:
    prompts: int
    best_of_n: int
    batch: int
    tasks: TaskEvaluation
    diversity: Diversity

    def __post_init__(self):
        at_least(self, 2, "prompts")
        not_negative(self, "best_of_n")
        positive(self, "batch")

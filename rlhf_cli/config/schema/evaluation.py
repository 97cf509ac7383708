"""Section `evaluation`: the final comparison of base model, SFT, PPO and best-of-n."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import (
    ConstraintError,
    at_least,
    not_negative,
    positive,
    require,
)
from rlhf_cli.config.schema.data import Source

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
class PromptSet(Source):
    """A source of prompts unlike those of training, under a name of its own."""

    name: str = ""

    def __post_init__(self):
        Source.__post_init__(self)  # dataclasses with slots have no zero-argument super()
        named = bool(self.name.strip()) and self.name.isprintable() and "/" not in self.name
        require(self, "name", named, f"must name the set, without a / (source {self.path})")
        apart = self.weight is None and not self.eval
        require(self, "weight", apart, f"and .eval have no meaning here (source {self.path})")


@dataclass(slots=True, kw_only=True)
class Suites:
    """Files of published suites on harm, bias and truth, each a path or null, and how they are asked."""

    toxicity: str | None
    bias: str | None
    crows_pairs: str | None
    winogender: str | None
    truthfulqa: str | None
    xstest: str | None
    samples: int
    limit: int | None
    persona: str | None
    toxicity_model: str | None
    sentiment_model: str | None

    def __post_init__(self):
        positive(self, "samples", "limit")


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
    against: str
    judges: list[str]
    gold: bool
    ood: list[PromptSet]
    suites: Suites
    probes: str | None
    tasks: TaskEvaluation
    diversity: Diversity

    def __post_init__(self):
        at_least(self, 2, "prompts")
        not_negative(self, "best_of_n")
        positive(self, "batch")
        once = len(self.judges) == len(set(self.judges))
        require(self, "judges", once, "must name each reward model once")
        names = [one.name for one in self.ood]
        if len(names) > len(set(names)):
            raise ConstraintError("ood", names, "must name each set differently")

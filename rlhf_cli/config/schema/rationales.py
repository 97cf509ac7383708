"""Section `rationales`: chains of thought written by a model that is given the answers, and checked."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import not_negative, positive, require, within
from rlhf_cli.config.schema.tasks import MOST_SHOTS


class Keep(Enum):
    best = "best"
    all = "all"


class Check(Enum):
    answer = "answer"
    length = "length"
    ending = "ending"
    duplicate = "duplicate"
    likelihood = "likelihood"


@dataclass(slots=True, kw_only=True)
class Rationales:
    of: str  # base, or a stage that trains a policy (stage_table.py)
    limit: int | None
    shots: int
    samples: int
    temperature: float
    checks: list[Check]
    max_tokens: int
    gain: float
    scorer: str
    keep: Keep
    batch: int

    def __post_init__(self):
        positive(self, "limit", "samples", "max_tokens", "batch")
        within(self, f"[0, {MOST_SHOTS}]", "shots", unit="exemplars")
        # Several greedy answers to one question are all the same.
        text = "must be positive, or .samples=1"
        require(self, "temperature", self.temperature > 0 or self.samples == 1, text)
        not_negative(self, "temperature")
        require(self, "checks", len(set(self.checks)) == len(self.checks), "has a check twice")
        require(self, "scorer", bool(self.scorer.strip()), "must be same, a folder or a hub id")

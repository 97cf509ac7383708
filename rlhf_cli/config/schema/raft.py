"""Section `raft`: rounds of supervised learning on the best of one's own samples."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.constraints import positive, within
from rlhf_cli.config.schema.training import Batch, Optim, Schedule


class RaftSource(Enum):
    samples = "samples"
    comparisons = "comparisons"


class RaftKeep(Enum):
    best = "best"
    top = "top"
    random = "random"


@dataclass(slots=True, kw_only=True)
class RAFT:
    source: RaftSource
    rounds: int
    prompts: int
    samples: int
    sample_batch: int
    keep: RaftKeep
    top: float
    temperature: float
    epochs: int
    batch: Batch
    optim: Optim
    schedule: Schedule

    def __post_init__(self):
        positive(self, "rounds", "prompts", "samples", "sample_batch", "temperature", "epochs")
        within(self, "(0, 1]", "top", unit="share of the samples of a round")

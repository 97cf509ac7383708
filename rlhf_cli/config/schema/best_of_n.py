"""Section `best_of_n`: the best of several responses by the reward model, without training."""

from dataclasses import dataclass

from rlhf_cli.config.schema.constraints import positive, require


@dataclass(slots=True, kw_only=True)
class BestOfN:
    of: str  # base, or a stage that trains a policy (stage_table.py)
    n: int
    samples: int
    prompts: int
    temperature: float
    batch: int

    def __post_init__(self):
        positive(self, "n", "samples", "prompts", "temperature", "batch")
        text = f"is more than .samples={self.samples}: the curve ends at .samples"
        require(self, "n", self.n <= self.samples, text)

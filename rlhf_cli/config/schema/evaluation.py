"""Section `evaluation`: the final comparison of base model, SFT, PPO and best-of-n."""

from dataclasses import dataclass

from rlhf_cli.config.schema.constraints import at_least, not_negative, positive


@dataclass(slots=True, kw_only=True)
class Evaluation:
    prompts: int
    best_of_n: int
    batch: int

    def __post_init__(self):
        at_least(self, 2, "prompts")
        not_negative(self, "best_of_n")
        positive(self, "batch")

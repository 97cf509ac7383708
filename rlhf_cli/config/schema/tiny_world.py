"""Section `tiny_world`: size and simulated annotators of the embedded task."""

from dataclasses import dataclass

from rlhf_cli.config.schema.constraints import at_least, at_most, not_negative, require


@dataclass(slots=True, kw_only=True)
class TinyWorld:
    demonstrations: int
    comparisons: int
    prompts: int
    held_out_prompts: int
    pretraining: int
    completions: list[int]
    noise: float
    tie_margin: float
    length_bias: float
    format_bias: float
    wrong: float

    def __post_init__(self):
        at_least(self, 20, "demonstrations", "comparisons", "prompts")
        not_negative(self, "held_out_prompts", "pretraining", "noise", "tie_margin")
        at_most(self, 0, "wrong")
        is_range = (
            len(self.completions) == 2 and 2 <= self.completions[0] <= self.completions[1] <= 9
        )
        require(self, "completions", is_range, "must be [fewest, most] within 2 and 9")

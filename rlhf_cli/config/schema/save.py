"""Section `save`: checkpoints of the running stage, and finished stages that were replaced."""

from dataclasses import dataclass

from rlhf_cli.config.schema.constraints import at_least, not_negative, positive


@dataclass(slots=True, kw_only=True)
class Save:
    every_steps: int | None
    every_minutes: float | None
    keep: int
    keep_replaced: int

    def __post_init__(self):
        positive(self, "every_steps", "every_minutes")
        at_least(self, 1, "keep")
        not_negative(self, "keep_replaced")

"""Who plays in PPO: the policy and value model that learn, the reference and reward model that do not."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from rlhf_cli.models.forward import ModelInputs
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.world import World
from rlhf_cli.telemetry.timing import Clock

# prompts with their responses -> scores (B,)
Score = Callable[[ModelInputs], Tensor]


def ignore() -> None:
    """Nothing to do."""


@dataclass(slots=True, kw_only=True)
class Players:
    """score is the frozen reward model's voice, or any function of prompts and responses; `rest` lets
    what stands behind it wait for the next time. clock: the stage's."""

    policy: Engine
    value: Engine
    ref_policy: Network
    score: Score
    device: Device
    rest: Callable[[], None] = ignore
    clock: Clock = field(default_factory=Clock)

    @property
    def world(self) -> World:
        return self.policy.world

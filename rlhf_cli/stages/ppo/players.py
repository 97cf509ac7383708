"""Who plays in PPO: the policy and value model that learn, the reference and reward model that do not."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.world import World

# (prompts, prompt_mask, responses, response_mask) -> scores (B,)
Score = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(slots=True, kw_only=True)
class Players:
    """score is the frozen reward model's voice, or any function of the same tensors."""

    policy: Engine
    value: Engine
    ref_policy: Network
    score: Score
    device: Device

    @property
    def world(self) -> World:
        return self.policy.world


@dataclass(slots=True, kw_only=True)
class Ending:
    """How long a response may be, and which tokens end or pad it. reference: sample the plain way."""

    max_new_tokens: int
    end_ids: list[int]
    pad_id: int
    reference: bool = False

"""The models that collect a rollout and learn from it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from rlhf_cli.config.schema import PPO, PolicyGradient
from rlhf_cli.models.forward import ModelInputs
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.telemetry.timing import Clock

Score = Callable[[ModelInputs], Tensor]  # of prompts with their responses -> scores (B,)
OnPolicy = PPO | PolicyGradient  # settings of a method that learns from its own samples


@dataclass(slots=True, kw_only=True)
class RolloutModels:
    """scores: of the frozen reward models, or any functions of prompts and responses. combine: makes
    one score of a response from those of all, (M, B) -> (B,).

    ref_policy: None where the KL has no weight. value_model: None of a method that has none.
    reward_models: the networks behind `scores`, each offloaded when it has scored a rollout; none where
    there are no networks. clock: of the stage.
    """

    policy: Engine
    ref_policy: Network | None
    scores: tuple[Score, ...]
    device: Device
    value_model: Engine | None = None
    combine: Callable[[Tensor], Tensor] = lambda scores: scores.mean(0)
    reward_models: tuple[Network, ...] = ()
    clock: Clock = field(default_factory=Clock)

    @property
    def trained(self) -> dict[str, Engine]:
        """Return the models that learn from a rollout, by the names of their metrics."""
        return {"policy": self.policy} | ({"val": self.value_model} if self.value_model else {})

    @property
    def readers(self) -> list[Network]:
        """Return the models that read every response token by token."""
        networks = (self.policy, self.value_model, self.ref_policy)
        return [network for network in networks if network is not None]

"""KL of the policy to its reference, estimated from the policy's own samples, and its coefficient.

With log r = ref_logprobs - logprobs (Schulman 2020): k1 and k3 are unbiased for KL(policy || ref),
k2 is biased but differentiates to the right gradient. Inside a reward only k1 is right.
"""

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return -log r: unbiased, of either sign. Elementwise."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return (log r)^2 / 2: never negative, biased. Elementwise."""
    return 0.5 * (ref_logprobs - logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return r - 1 - log r: never negative, unbiased. Elementwise."""
    log_r = ref_logprobs - logprobs
    return torch.expm1(log_r) - log_r


ESTIMATORS = MappingProxyType({"k1": k1, "k2": k2, "k3": k3})


@dataclass(slots=True)
class FixedKL:
    """A constant coefficient; it has no state, so a resumed run takes it from its configuration."""

    coef: float

    def update(self, kl: float, num_episodes: int) -> None:
        """Do nothing: the coefficient is constant."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        if state:
            raise ValueError(f"a fixed KL coefficient has no state, got {sorted(state)}")


@dataclass(slots=True)
class AdaptiveKL:
    """A coefficient that rises while KL (nats per response) is above target, by at most 20 % per horizon.

    coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * num_episodes / horizon (ZG train_policy.py:121).
    """

    coef: float
    target: float
    horizon: float

    def update(self, kl: float, num_episodes: int) -> None:
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coef *= 1 + error * num_episodes / self.horizon

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coef = state["coef"]

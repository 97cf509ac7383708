"""What is refused, stopped for, or warned of while a policy learns from its own samples."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Alerts, MissingEOS, MissingEOSMode
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.masking import masked_mean
from rlhf_cli.models.generation.sampling import TOLERANCE


class NotFinite(UserError):
    """A score, log-prob or loss is NaN or infinite; `rows` of `rollout` are the offending samples.

    `runtime.engine.NotFinite` is that of a gradient, of which no sample is known.
    """

    def __init__(self, message: str, rollout: Rollout, rows: list[int]):
        super().__init__(message)
        self.rollout = rollout
        self.rows = rows


def require_finite(values: Tensor, what: str, rollout: Rollout) -> None:
    """Stop when one of `values` (B,) or () is NaN or infinite."""
    if torch.isfinite(values).all():
        return
    bad = (~torch.isfinite(values)).reshape(-1).nonzero().squeeze(1).tolist()
    rows = bad if values.ndim else list(range(len(rollout.scores)))
    raise NotFinite(f"the {what} is not finite for {len(rows)} responses", rollout, rows)


def check_start(rollout: Rollout, dtype: torch.dtype) -> None:
    """Refuse a policy that is not its reference before the first update: log-ratios must be 0."""
    gap = float(masked_mean((rollout.logprobs - rollout.ref_logprobs).abs(), rollout.response_mask))
    if gap > TOLERANCE[dtype]:
        raise UserError(
            f"the policy would start {gap:.2g} nats per token away from its reference; it must start at "
            "KL 0. The two differ: dropout is on, or they come from different weights"
        )


def check_first_ratio(deviation: float, dtype: torch.dtype) -> None:
    """Refuse a ratio other than 1 before the first step on a rollout: scoring and training must agree."""
    if deviation > TOLERANCE[dtype]:
        raise UserError(
            f"the first importance ratio is off 1 by {deviation:.2g}: the log-probs of training are not "
            "those of the rollout (dropout, another temperature, or another mask)"
        )


@dataclass(slots=True)
class MetricAlerts:
    """Compares the metrics of an iteration with the alerts of a section; warns once until one is back.

    That a missing EOS is paid better than EOS is a fault of the set-up: it is always warned of.
    """

    section: str
    limits: Alerts
    missing_eos: MissingEOS
    first_length: float | None = None
    active: set[str] = field(default_factory=set)

    def new(self, metrics: dict[str, float]) -> list[str]:
        """Return the new alerts of this iteration, a sentence each."""
        length = metrics["objective/response_length"]
        if self.first_length is None:
            self.first_length = max(length, 1e-6)
        found = dict(self._check(metrics, length / self.first_length))
        fresh = [text for name, text in found.items() if name not in self.active]
        self.active = set(found)
        return fresh

    def state_dict(self) -> dict:
        return {"first_length": self.first_length, "active": sorted(self.active)}

    def load_state_dict(self, state: dict) -> None:
        self.first_length, self.active = state["first_length"], set(state["active"])

    def _check(self, metrics: dict[str, float], growth: float) -> list[tuple[str, str]]:
        limits, found = self.limits, []
        eos, entropy = (metrics[f"objective/{key}"] for key in ("eos_rate", "entropy"))
        kl = metrics.get("objective/kl")
        if limits.eos_rate is not None and eos < limits.eos_rate:
            found.append(("eos_rate", f"only {eos:.0%} of the responses contain EOS"))
        if limits.length is not None and not 1 / limits.length < growth < limits.length:
            found.append(("length", f"responses are {growth:.2f} times as long as at the start"))
        if limits.entropy is not None and entropy < limits.entropy:
            found.append(("entropy", f"the policy's entropy fell to {entropy:.3f} nats per token"))
        if kl is not None and over(kl, limits.kl):
            found.append(("kl", f"the KL to the SFT model reached {kl:.1f} nats per response"))
        found += self._check_scores(metrics)
        return found + self._check_missing_eos(metrics.get("objective/scores_ended"))

    def _check_scores(self, metrics: dict[str, float]) -> list[tuple[str, str]]:
        """Check the scores of responses with EOS (at least two), which missing_eos leaves alone."""
        spread, limits, found = metrics.get("objective/scores_ended_std"), self.limits, []
        if spread is None:
            return found
        size = (metrics["objective/scores_ended"] ** 2 + spread**2) ** 0.5
        if limits.score_std is not None and spread < limits.score_std:
            text = (
                f"the scores differ by {spread:.2g} on average: nothing can be learned from a "
                "constant reward"
            )
            found.append(("score_std", text))
        if limits.score_rms is not None and size > limits.score_rms:
            text = (
                f"the scores are as large as {size:.3g}: the KL penalty is negligible beside them"
            )
            found.append(("score_rms", text))
        return found

    def _check_missing_eos(self, ended: float | None) -> list[tuple[str, str]]:
        """Check what a missing EOS earns. ended: mean score of the responses with EOS, or None."""
        replaced, value = self.missing_eos.mode is MissingEOSMode.replace, self.missing_eos.value
        if not replaced or ended is None or ended >= value:
            return []
        key = f"{self.section}.missing_eos.value"
        text = (
            f"a response without EOS earns {key}={value:.2f}, those with EOS score "
            f"{ended:.2f} on average: EOS is punished; set {key} below {ended:.2f}"
        )
        return [("missing_eos", text)]


def over(value: float, limit: float | None) -> bool:
    """Return whether a limit is set and exceeded."""
    return limit is not None and value > limit

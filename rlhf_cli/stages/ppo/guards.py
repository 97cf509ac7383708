"""What PPO refuses, stops for, or says aloud."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Alerts, MissingEOS, MissingEOSMode
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.masking import masked_mean
from rlhf_cli.models.generation.sampling import TOLERANCE


class NotFinite(UserError):
    """A score, log-prob or loss is NaN or infinite; `rows` of `rollout` are the offending samples."""

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
    """Before the first update the policy is its reference: every token's log-ratio must be 0."""
    gap = float(masked_mean((rollout.logprobs - rollout.ref_logprobs).abs(), rollout.response_mask))
    if gap > TOLERANCE[dtype]:
        raise UserError(
            f"PPO would start {gap:.2g} nats per token away from its reference; it must start at KL 0. "
            "Policy and reference differ: dropout is on, or they come from different weights"
        )


def check_first_ratio(deviation: float, dtype: torch.dtype) -> None:
    """Before the first gradient step of a rollout the ratio is 1: scoring and training agree."""
    if deviation > TOLERANCE[dtype]:
        raise UserError(
            f"the first importance ratio is off 1 by {deviation:.2g}: the log-probs of training are not "
            "those of the rollout (dropout, another temperature, or another mask)"
        )


@dataclass(slots=True)
class Watch:
    """Compares an iteration's metrics with the alerts; each alert rings once until it has passed.

    That a missing end is paid better than an end is a fault of the set-up: it is always said.
    """

    alerts: Alerts
    missing_eos: MissingEOS
    first_length: float | None = None
    ringing: set[str] = field(default_factory=set)

    def alarming(self, metrics: dict[str, float]) -> list[str]:
        """The new alerts of this iteration, a sentence each."""
        length = metrics["objective/response_length"]
        if self.first_length is None:
            self.first_length = max(length, 1e-6)
        now = {
            name: text for name, text in self._judge(metrics, length / self.first_length) if text
        }
        fresh = [text for name, text in now.items() if name not in self.ringing]
        self.ringing = set(now)
        return fresh

    def state_dict(self) -> dict:
        return {"first_length": self.first_length, "ringing": sorted(self.ringing)}

    def load_state_dict(self, state: dict) -> None:
        self.first_length, self.ringing = state["first_length"], set(state["ringing"])

    def _judge(self, metrics: dict[str, float], growth: float) -> list[tuple[str, str]]:
        alerts, say = self.alerts, []
        eos, entropy, kl = (metrics[f"objective/{key}"] for key in ("eos_rate", "entropy", "kl"))
        if alerts.eos_rate is not None and eos < alerts.eos_rate:
            say.append(("eos_rate", f"only {eos:.0%} of the responses end by themselves"))
        if alerts.length is not None and not 1 / alerts.length < growth < alerts.length:
            say.append(("length", f"responses are {growth:.2f} times as long as at the start"))
        if alerts.entropy is not None and entropy < alerts.entropy:
            say.append(("entropy", f"the policy's entropy fell to {entropy:.3f} nats per token"))
        if alerts.kl is not None and kl > alerts.kl:
            say.append(("kl", f"the KL to the SFT model reached {kl:.1f} nats per response"))
        say += self._judge_scores(metrics)
        return say + self._judge_ending(metrics.get("objective/scores_ended"))

    def _judge_scores(self, metrics: dict[str, float]) -> list[tuple[str, str]]:
        """The reward model's own scores, without what ppo.missing_eos makes of them; of two at least."""
        spread, alerts, say = metrics.get("objective/scores_ended_std"), self.alerts, []
        if spread is None:
            return say
        size = (metrics["objective/scores_ended"] ** 2 + spread**2) ** 0.5
        if alerts.score_std is not None and spread < alerts.score_std:
            text = (
                f"the scores differ by {spread:.2g} on average: a constant reward teaches nothing"
            )
            say.append(("score_std", text))
        if alerts.score_rms is not None and size > alerts.score_rms:
            text = f"the scores are as large as {size:.3g}: ppo.kl.coef weighs nothing beside them"
            say.append(("score_rms", text))
        return say

    def _judge_ending(self, ended: float | None) -> list[tuple[str, str]]:
        """ended: mean score of the responses that ended; None where none did."""
        replaced, value = self.missing_eos.mode is MissingEOSMode.replace, self.missing_eos.value
        if not replaced or ended is None or ended >= value:
            return []
        text = (
            f"not ending earns ppo.missing_eos.value={value:.2f}, responses that ended score "
            f"{ended:.2f} on average: ending is punished; set ppo.missing_eos.value below {ended:.2f}"
        )
        return [("missing_eos", text)]


def over(value: float, limit: float | None) -> bool:
    """Whether a limit is set and passed."""
    return limit is not None and value > limit

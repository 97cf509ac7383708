"""Where a method is that learns from its own samples: what its checkpoints hold."""

from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from rlhf_cli.config.schema import OldLogprobs
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.kl import AdaptiveKL, FixedKL
from rlhf_cli.stages.rollout.checks import MetricAlerts
from rlhf_cli.stages.rollout.collect import MAX_GAP
from rlhf_cli.stages.rollout.models import OnPolicy, RolloutModels


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Inside `iteration`, after one optimizer step for each dictionary of metrics in `rows`.

    rollout and objective, its metrics: of this iteration, once it was collected. gap: between the
    log-probs of the sampler and those of a forward pass when they were last compared, nats per token.
    baseline: the running mean reward, of a method that has one. drawn: batches of prompts so far.
    """

    controller: FixedKL | AdaptiveKL
    alerts: MetricAlerts
    iteration: int = 0
    gap: float | None = None
    baseline: float | None = None
    drawn: int = 0
    rollout: Rollout | None = None
    objective: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return all but the rollout, as numbers and lists."""
        return {
            "iteration": self.iteration,
            "gap": self.gap,
            "baseline": self.baseline,
            "drawn": self.drawn,
            "objective": self.objective,
            "rows": self.rows,
            "controller": self.controller.state_dict(),
            "alerts": self.alerts.state_dict(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the rollout."""
        assert self.rollout is not None
        return {f.name: getattr(self.rollout, f.name).cpu() for f in fields(Rollout)}

    def load_state_dict(self, state: dict[str, Any], tensors: dict[str, Tensor], device) -> None:
        """Continue where `state` and `tensors` were taken."""
        self.iteration, self.objective = state["iteration"], state["objective"]
        self.gap, self.rows = state["gap"], state["rows"]
        self.baseline, self.drawn = state["baseline"], state["drawn"]
        self.controller.load_state_dict(state["controller"])
        self.alerts.load_state_dict(state["alerts"])
        self.rollout = Rollout(**tensors).to(device)


def logprob_source_note(mode: OldLogprobs, gap: float) -> str:
    """Return where the old log-probs come from, and why."""
    sampler = mode is OldLogprobs.sampler or (mode is OldLogprobs.auto and gap <= MAX_GAP)
    source = "from the sampler" if sampler else "from a forward pass"
    return f"old log-probs: {source} (mean difference of the two {gap:.1e} nats per token)"


def progress_metrics(
    stage: str, models: RolloutModels, cfg: OnPolicy, iteration: int, factor: float
) -> dict[str, float]:
    """Return episodes so far, the learning rate of the iteration, and peak memory."""
    return {
        f"{stage}/episodes": float(min((iteration + 1) * cfg.batch.rollout, cfg.total_episodes)),
        f"{stage}/lr": models.policy.peak_lr * factor,
    } | models.device.peak_memory()

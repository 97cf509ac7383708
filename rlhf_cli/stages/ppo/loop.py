"""The iterations of PPO: collect, shape rewards, estimate advantages, update, adapt the KL coefficient."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

from rlhf_cli.config.schema import KL, PPO, KLController, OldLogprobs
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.kl import AdaptiveKL, FixedKL
from rlhf_cli.core.masking import masked_var, whiten
from rlhf_cli.core.randomness import permutation, uniforms
from rlhf_cli.core.returns import gae, shaped_rewards
from rlhf_cli.data.order import num_batches
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.stages.ppo.checks import MetricAlerts, check_start, over
from rlhf_cli.stages.ppo.models import PPOModels
from rlhf_cli.stages.ppo.rollout import MAX_GAP, collect_rollout, should_recompute
from rlhf_cli.stages.ppo.update import updates
from rlhf_cli.stages.saving import Saver
from rlhf_cli.stages.training import lr_factor
from rlhf_cli.telemetry.recorder import Recorder


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Where PPO is: inside `iteration`, after one optimizer step for each dictionary of metrics in `rows`.

    rollout and objective, its metrics: of this iteration, once it was collected. gap: between the
    log-probs of the sampler and those of a forward pass when they were last compared, nats per token.
    """

    controller: FixedKL | AdaptiveKL
    alerts: MetricAlerts
    iteration: int = 0
    gap: float | None = None
    rollout: Rollout | None = None
    objective: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(cls, cfg: PPO) -> "TrainState":
        controller = kl_controller(cfg.kl)
        return cls(controller=controller, alerts=MetricAlerts(cfg.alerts, cfg.missing_eos))

    def state_dict(self) -> dict[str, Any]:
        """Return all but the rollout, as numbers and lists."""
        return {
            "iteration": self.iteration,
            "gap": self.gap,
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
        self.controller.load_state_dict(state["controller"])
        self.alerts.load_state_dict(state["alerts"])
        self.rollout = Rollout(**tensors).to(device)


def train(
    models: PPOModels,
    prompts: Iterator[PromptBatch],
    params: SamplingParams,
    cfg: PPO,
    recorder: Recorder,
    *,
    seed: int,
    state: TrainState | None = None,
    saver: Saver | None = None,
) -> dict[str, float]:
    """Run all iterations from where `state` stands; return the last metrics.

    prompts begins with the batch of that iteration. Sampling and minibatch order are functions of
    `seed` and the iteration.
    """
    state = state or TrainState.start(cfg)
    metrics: dict[str, float] = {}
    total = num_iterations(cfg)
    for iteration in range(state.iteration, total):
        batch, kl_coef = next(prompts).to(models.device.torch), state.controller.coef

        if state.rollout is None:
            recompute = should_recompute(cfg.old_logprobs, state.gap, iteration)
            drawn = uniforms(len(batch.tokens), params.max_new_tokens, seed, "rollout", iteration)
            state.rollout, state.objective = collect_rollout(
                models, batch, drawn, params, cfg, recompute=recompute
            )
            state.gap = state.objective.get("policy/sampler_gap", state.gap)
            if iteration == 0:
                check_start(state.rollout, models.device.dtype)
                recorder.note(logprob_source_note(cfg.old_logprobs, state.gap))

        rollout = compute_advantages(state.rollout, kl_coef, cfg)
        minibatches = minibatches_of(len(rollout.scores), cfg, seed, iteration)
        factor = lr_factor(cfg.schedule, iteration, total)
        done = len(state.rows)
        for row in updates(models, rollout, minibatches, cfg, done=done, lr_factor=factor):
            state.rows.append(row)
            if saver is not None:
                saver.after_step(models.policy.steps, state)

        kl = state.objective["objective/kl"]
        state.controller.update(kl, len(rollout.scores))
        metrics = state.objective | mean_metrics(state.rows, len(minibatches))
        metrics |= penalty_metrics(metrics, kl_coef) | explained_variance(rollout)
        metrics |= progress_metrics(models, cfg, iteration, factor)
        recorder.log(metrics, iteration + 1)
        for alert in state.alerts.new(metrics):
            recorder.warn(alert)
        if over(kl, cfg.kl_stop.run):
            recorder.warn(f"stopped after iteration {iteration + 1}: KL above ppo.kl_stop.run")
            break
        state.iteration, state.rollout, state.rows = iteration + 1, None, []
    return metrics


def num_episodes(cfg: PPO) -> int:
    """Return how many responses are sampled in total: total_episodes, or max_steps rollouts if fewer."""
    if cfg.max_steps is None:
        return cfg.total_episodes
    return min(cfg.total_episodes, cfg.max_steps * cfg.batch.rollout)


def num_iterations(cfg: PPO) -> int:
    return num_batches(num_episodes(cfg), cfg.batch.rollout)


def kl_controller(cfg: KL) -> FixedKL | AdaptiveKL:
    if cfg.controller is KLController.adaptive:
        return AdaptiveKL(cfg.coef, target=cfg.target, horizon=cfg.horizon)
    return FixedKL(cfg.coef)


def logprob_source_note(mode: OldLogprobs, gap: float) -> str:
    """Return where the old log-probs come from, and why."""
    sampler = mode is OldLogprobs.sampler or (mode is OldLogprobs.auto and gap <= MAX_GAP)
    source = "from the sampler" if sampler else "from a forward pass"
    return f"old log-probs: {source} (mean difference of the two {gap:.1e} nats per token)"


def minibatches_of(num_rows: int, cfg: PPO, seed: int, iteration: int) -> list[Tensor]:
    """Return the rows of every minibatch: each inner epoch has an order of its own."""
    orders = (
        permutation(num_rows, seed, "minibatches", iteration, epoch)
        for epoch in range(cfg.inner_epochs)
    )
    return [index for order in orders for index in order.split(cfg.batch.minibatch)]


def mean_metrics(rows: list[dict[str, float]], num_minibatches: int) -> dict[str, float]:
    """Return the means over the optimizer steps of an iteration, and whether it was stopped early."""
    names = rows[0] if rows else []
    means = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    return means | {
        "policy/steps": len(rows),
        "policy/stopped_early": len(rows) < num_minibatches,
    }


def compute_advantages(rollout: Rollout, kl_coef: float, cfg: PPO) -> Rollout:
    """Return the rollout with returns and advantages; only the advantages are whitened."""
    mask = rollout.response_mask
    rewards = shaped_rewards(
        rollout.scores, rollout.logprobs, rollout.ref_logprobs, mask, kl_coef=kl_coef
    )
    if cfg.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = gae(
        rewards, rollout.values, mask, gamma=cfg.gamma, gae_lambda=cfg.gae_lambda
    )
    if cfg.whiten_advantages:
        advantages = whiten(advantages, mask, shift_mean=True)
    return replace(rollout, advantages=advantages, returns=returns)


def penalty_metrics(metrics: dict[str, float], kl_coef: float) -> dict[str, float]:
    """Return the KL coefficient of the iteration, and the score per response after the penalty."""
    penalty = kl_coef * metrics["objective/kl"]
    return {
        "objective/rlhf_reward": metrics["objective/scores"] - penalty,
        "objective/kl_coef": kl_coef,
    }


def progress_metrics(
    models: PPOModels, cfg: PPO, iteration: int, factor: float
) -> dict[str, float]:
    """Return episodes so far, the learning rate of the iteration, and peak memory."""
    return {
        "ppo/episodes": float(min((iteration + 1) * cfg.batch.rollout, cfg.total_episodes)),
        "ppo/lr": models.policy.peak_lr * factor,
    } | models.device.peak_memory()


def explained_variance(rollout: Rollout) -> dict[str, float]:
    """Return the share of the returns' variance that the value model predicted."""
    mask, returns = rollout.response_mask, rollout.returns
    left = masked_var(returns - rollout.values, mask) / (masked_var(returns, mask) + 1e-8)
    return {"val/explained_variance": 1 - float(left)}

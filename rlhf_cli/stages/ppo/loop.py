"""The iterations of PPO: collect, shape rewards, estimate advantages, update, adapt the KL coefficient."""

from collections.abc import Iterator
from dataclasses import replace

from rlhf_cli.config.schema import KL, PPO, KLController
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.kl import AdaptiveKL, FixedKL
from rlhf_cli.core.masking import masked_var, whiten
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.core.returns import gae, shaped_rewards
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.stages.ppo.models import PPOModels
from rlhf_cli.stages.ppo.update import updates
from rlhf_cli.stages.rollout.checks import MetricAlerts, check_start, over
from rlhf_cli.stages.rollout.collect import collect_rollout, should_recompute
from rlhf_cli.stages.rollout.episodes import num_iterations
from rlhf_cli.stages.rollout.state import TrainState, logprob_source_note, progress_metrics
from rlhf_cli.stages.rollout.updates import mean_metrics, minibatches_of
from rlhf_cli.stages.rollout.watch import PolicyWatch
from rlhf_cli.stages.saving import Saver
from rlhf_cli.stages.training import lr_factor
from rlhf_cli.telemetry.recorder import Recorder


def start(cfg: PPO) -> TrainState:
    """Return the state of a stage that begins."""
    alerts = MetricAlerts("ppo", cfg.alerts, cfg.missing_eos)
    return TrainState(controller=kl_controller(cfg.kl), alerts=alerts)


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
    watch: PolicyWatch | None = None,
) -> dict[str, float]:
    """Run all iterations from where `state` stands; return the last metrics.

    prompts begins with the batch of that iteration. Sampling and minibatch order are functions of
    `seed` and the iteration.
    """
    state = state or start(cfg)
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
        metrics |= progress_metrics("ppo", models, cfg, iteration, factor)
        recorder.log(metrics, iteration + 1)
        for alert in state.alerts.new(metrics):
            recorder.warn(alert)
        stopping = over(kl, cfg.kl_stop.run)
        if watch is not None:
            watch.look(models.policy, iteration + 1, last=stopping or iteration + 1 == total)
        if stopping:
            recorder.warn(f"stopped after iteration {iteration + 1}: KL above ppo.kl_stop.run")
            break
        state.iteration, state.rollout, state.rows = iteration + 1, None, []
    return metrics


def kl_controller(cfg: KL) -> FixedKL | AdaptiveKL:
    if cfg.controller is KLController.adaptive:
        return AdaptiveKL(cfg.coef, target=cfg.target, horizon=cfg.horizon)
    return FixedKL(cfg.coef)


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


def explained_variance(rollout: Rollout) -> dict[str, float]:
    """Return the share of the returns' variance that the value model predicted."""
    mask, returns = rollout.response_mask, rollout.returns
    left = masked_var(returns - rollout.values, mask) / (masked_var(returns, mask) + 1e-8)
    return {"val/explained_variance": 1 - float(left)}

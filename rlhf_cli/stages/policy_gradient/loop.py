"""The iterations of a policy gradient: collect groups, rewards, advantages, update."""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from rlhf_cli.config.schema import Baseline, KLPlace, PolicyGradient
from rlhf_cli.core.baselines import response_advantages, updated_baseline
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.kl import FixedKL
from rlhf_cli.core.returns import response_rewards
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.stages.policy_gradient.groups import collect_groups
from rlhf_cli.stages.policy_gradient.update import updates
from rlhf_cli.stages.rollout.checks import MetricAlerts, check_start, over
from rlhf_cli.stages.rollout.collect import should_recompute
from rlhf_cli.stages.rollout.episodes import num_iterations
from rlhf_cli.stages.rollout.models import RolloutModels
from rlhf_cli.stages.rollout.state import TrainState, logprob_source_note, progress_metrics
from rlhf_cli.stages.rollout.updates import mean_metrics, minibatches_of
from rlhf_cli.stages.rollout.watch import PolicyWatch
from rlhf_cli.stages.saving import Saver
from rlhf_cli.stages.training import lr_factor
from rlhf_cli.telemetry.recorder import Recorder


def start(stage: str, cfg: PolicyGradient) -> TrainState:
    """Return the state of a stage that begins."""
    alerts = MetricAlerts(stage, cfg.alerts, cfg.missing_eos)
    return TrainState(controller=FixedKL(cfg.kl.coef), alerts=alerts)


def train(
    models: RolloutModels,
    prompts: Iterator[PromptBatch],
    params: SamplingParams,
    cfg: PolicyGradient,
    recorder: Recorder,
    *,
    stage: str,
    seed: int,
    state: TrainState | None = None,
    saver: Saver | None = None,
    watch: PolicyWatch | None = None,
) -> dict[str, float]:
    """Run all iterations from where `state` stands; return the last metrics.

    prompts begins with batch number `state.drawn`. Sampling is a function of `seed` and the number of the
    batch, the order of minibatches of `seed` and the iteration.
    """
    state = state or start(stage, cfg)
    metrics: dict[str, float] = {}
    total = num_iterations(cfg)
    for iteration in range(state.iteration, total):
        if state.rollout is None:
            found = collect_groups(
                models,
                prompts,
                replace(params, copies=cfg.group),
                cfg,
                seed=seed,
                first=state.drawn,
                recompute=should_recompute(cfg.old_logprobs, state.gap, iteration),
            )
            state.rollout, state.objective = found.rollout, found.metrics
            state.drawn += found.drawn
            state.gap = state.objective.get("policy/sampler_gap", state.gap)
            if iteration == 0:
                if models.ref_policy is not None:
                    check_start(state.rollout, models.device.dtype)
                recorder.note(logprob_source_note(cfg.old_logprobs, state.gap))

        rewards = rewards_of(state.rollout, cfg)
        rollout = with_advantages(state.rollout, rewards, cfg, state.baseline)
        minibatches = minibatches_of(len(rollout.scores), cfg, seed, iteration)
        factor = lr_factor(cfg.schedule, iteration, total)
        done = len(state.rows)
        for row in updates(models, rollout, minibatches, cfg, done=done, lr_factor=factor):
            state.rows.append(row)
            if saver is not None:
                saver.after_step(models.policy.steps, state)

        if cfg.baseline is Baseline.running:
            state.baseline = updated_baseline(state.baseline, float(rewards.mean()))
        metrics = state.objective | mean_metrics(state.rows, len(minibatches))
        metrics |= reward_metrics(metrics, state, cfg)
        metrics |= progress_metrics(stage, models, cfg, iteration, factor)
        recorder.log(metrics, iteration + 1)
        for alert in state.alerts.new(metrics):
            recorder.warn(alert)
        stopping = over(metrics.get("objective/kl", 0.0), cfg.kl_stop.run)
        if watch is not None:
            watch.look(models.policy, iteration + 1, last=stopping or iteration + 1 == total)
        if stopping:
            recorder.warn(f"stopped after iteration {iteration + 1}: KL above {stage}.kl_stop.run")
            break
        state.iteration, state.rollout, state.rows = iteration + 1, None, []
    return metrics


def rewards_of(rollout: Rollout, cfg: PolicyGradient) -> Tensor:
    """Return the reward (B,) of each response: its score, minus the KL penalty of place=reward."""
    if not cfg.has_reference or cfg.kl.place is KLPlace.loss:
        return rollout.scores
    return response_rewards(
        rollout.scores,
        rollout.logprobs,
        rollout.ref_logprobs,
        rollout.response_mask,
        kl_coef=cfg.kl.coef,
    )


def with_advantages(
    rollout: Rollout, rewards: Tensor, cfg: PolicyGradient, running: float | None
) -> Rollout:
    """Return the rollout with the advantage of a response at each of its tokens."""
    advantages = response_advantages(
        rewards,
        baseline=cfg.baseline.name,
        scale=cfg.scale.name,
        group=cfg.group,
        running=running,
    )
    return replace(rollout, advantages=advantages[:, None] * rollout.response_mask)


def reward_metrics(
    metrics: dict[str, float], state: TrainState, cfg: PolicyGradient
) -> dict[str, float]:
    """Return the score per response after the penalty, its coefficient, and the running baseline."""
    found = {"objective/kl_coef": cfg.kl.coef}
    if "objective/kl" in metrics:
        penalty = cfg.kl.coef * metrics["objective/kl"]
        found["objective/rlhf_reward"] = metrics["objective/scores"] - penalty
    if state.baseline is not None:
        found["objective/baseline"] = state.baseline
    return found

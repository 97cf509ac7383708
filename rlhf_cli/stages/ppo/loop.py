"""PPO as its algorithm box reads: collect, shape, estimate, learn, adapt the price of KL."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor

from rlhf_cli.config.schema import KL, PPO, KLController, OldLogprobs
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.kl import AdaptiveKL, FixedKL, k1, k2, k3
from rlhf_cli.core.masking import masked_mean, masked_sum, masked_var, whiten
from rlhf_cli.core.randomness import permutation, uniforms
from rlhf_cli.core.returns import gae, shaped_rewards
from rlhf_cli.data.order import num_batches
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.stages.ppo.collect import GAP, collect, looks
from rlhf_cli.stages.ppo.guards import Watch, check_start, over
from rlhf_cli.stages.ppo.learn import Learned, Pretrain, learn
from rlhf_cli.stages.ppo.players import Players, ignore
from rlhf_cli.stages.setting import lr_factor
from rlhf_cli.telemetry.recorder import Recorder


def num_episodes(cfg: PPO) -> int:
    """Return how many responses are sampled in all: total_episodes, or max_steps rollouts if fewer."""
    if cfg.max_steps is None:
        return cfg.total_episodes
    return min(cfg.total_episodes, cfg.max_steps * cfg.batch.rollout)


def num_iterations(cfg: PPO) -> int:
    return num_batches(num_episodes(cfg), cfg.batch.rollout)


def kl_controller(cfg: KL) -> FixedKL | AdaptiveKL:
    if cfg.controller is KLController.adaptive:
        return AdaptiveKL(cfg.coef, target=cfg.target, horizon=cfg.horizon)
    return FixedKL(cfg.coef)


@dataclass(slots=True, kw_only=True)
class Course:
    """Where PPO stands: inside `iteration`, after the minibatches of which `learned` has a row.

    rollout and objective: of this iteration, once they have been collected. gap: between the log-probs
    of the sampler and those of a forward pass when they were last compared, nats per token.
    """

    controller: FixedKL | AdaptiveKL
    watch: Watch
    iteration: int = 0
    gap: float | None = None
    rollout: Rollout | None = None
    objective: dict[str, float] = field(default_factory=dict)
    learned: Learned = field(default_factory=Learned)

    @classmethod
    def start(cls, cfg: PPO) -> "Course":
        return cls(controller=kl_controller(cfg.kl), watch=Watch(cfg.alerts, cfg.missing_eos))

    def state(self) -> dict[str, Any]:
        """All but the rollout, as numbers and lists."""
        return {
            "iteration": self.iteration,
            "gap": self.gap,
            "objective": self.objective,
            "learned": asdict(self.learned),
            "controller": self.controller.state_dict(),
            "watch": self.watch.state_dict(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The rollout."""
        assert self.rollout is not None
        return {f.name: getattr(self.rollout, f.name).cpu() for f in fields(Rollout)}

    def go_on(self, state: dict[str, Any], tensors: dict[str, Tensor], device) -> None:
        """Stand where `state` and `tensors` were taken."""
        self.iteration, self.objective = state["iteration"], state["objective"]
        self.gap, self.learned = state["gap"], Learned(**state["learned"])
        self.controller.load_state_dict(state["controller"])
        self.watch.load_state_dict(state["watch"])
        self.rollout = Rollout(**tensors).to(device)


def train(
    players: Players,
    prompts: Iterator[PromptBatch],
    params: SamplingParams,
    cfg: PPO,
    recorder: Recorder,
    *,
    seed: int,
    course: Course | None = None,
    pretrain: Pretrain | None = None,
    after_step: Callable[[], None] = ignore,
) -> dict[str, float]:
    """Run all iterations from where `course` stands; returns the last metrics.

    prompts begins with the batch of that iteration. Sampling and minibatch order are functions of
    `seed` and the iteration.
    """
    course = course or Course.start(cfg)
    metrics: dict[str, float] = {}
    for iteration in range(course.iteration, num_iterations(cfg)):
        batch = next(prompts).to(players.device.torch)
        if course.rollout is None:
            roll_out(players, batch, params, cfg, course, seed)
            if iteration == 0:
                recorder.note(said_gap(cfg.old_logprobs, course.gap))
        rollout = course.rollout
        with players.clock.part("learn"):
            advantages, returns = credit(rollout, course.controller.coef, cfg)
            learn(
                players,
                rollout,
                advantages,
                returns,
                cfg,
                orders=orders(len(rollout.scores), cfg, seed, iteration),
                lr_factor=factor(iteration, cfg),
                learned=course.learned,
                pretrain=pretrain,
                after_step=after_step,
            )
        objective = course.objective
        course.controller.update(objective["objective/kl"], len(rollout.scores))
        metrics = objective | course.learned.means() | explained(rollout, returns)
        metrics |= progress(iteration, players, cfg)
        recorder.log(metrics, iteration + 1)
        for alert in course.watch.alarming(metrics):
            recorder.warn(alert)
        if over(objective["objective/kl"], cfg.kl_stop.run):
            recorder.warn(f"stopped after iteration {iteration + 1}: KL above ppo.kl_stop.run")
            break
        course.iteration, course.rollout, course.learned = iteration + 1, None, Learned()
    return metrics


def roll_out(
    players: Players,
    batch: PromptBatch,
    params: SamplingParams,
    cfg: PPO,
    course: Course,
    seed: int,
) -> None:
    """Collect this iteration's rollout into `course`, and say what it shows."""
    drawn = uniforms(len(batch.tokens), params.max_new_tokens, seed, "rollout", course.iteration)
    look = looks(cfg.old_logprobs, course.gap, course.iteration)
    course.rollout, entropies, gap = collect(players, batch, drawn, params, cfg, look=look)
    course.objective = describe(course.rollout, entropies, course.controller.coef)
    players.clock.count(generated=int(course.rollout.response_mask.sum()))
    if gap is not None:
        course.gap = course.objective["policy/sampler_gap"] = gap
    if course.iteration == 0:
        check_start(course.rollout, players.device.dtype)


def said_gap(mode: OldLogprobs, gap: float | None) -> str:
    """Where the old log-probs come from, and why."""
    sampler = mode is OldLogprobs.sampler or (mode is OldLogprobs.auto and gap <= GAP)
    source = "the sampler's own" if sampler else "recomputed by a forward pass"
    return f"old log-probs: {source} (the two are {gap:.1e} nats per token apart)"


def orders(num_rows: int, cfg: PPO, seed: int, iteration: int) -> list[Tensor]:
    """An order of the rollout's rows for every inner epoch."""
    return [
        permutation(num_rows, seed, "minibatches", iteration, epoch)
        for epoch in range(cfg.inner_epochs)
    ]


def progress(iteration: int, players: Players, cfg: PPO) -> dict[str, float]:
    return {
        "ppo/episodes": float(min((iteration + 1) * cfg.batch.rollout, cfg.total_episodes)),
        "ppo/lr": players.policy.peak_lr * factor(iteration, cfg),
    } | players.device.peak_memory()


def factor(iteration: int, cfg: PPO) -> float:
    """The learning rate changes once an iteration (IG warms up over the first 10)."""
    return lr_factor(cfg.schedule, iteration, num_iterations(cfg))


def credit(rollout: Rollout, kl_coef: float, cfg: PPO) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, R): returns come before the advantages are whitened."""
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
    return advantages, returns


def describe(rollout: Rollout, entropies: Tensor, kl_coef: float) -> dict[str, float]:
    """What the rollout shows: KL per response in its three estimates, score, reward, entropy, length."""
    mask = rollout.response_mask
    per_response = {
        name: masked_sum(estimate(rollout.logprobs, rollout.ref_logprobs), mask) / len(mask)
        for name, estimate in (("kl", k1), ("kl_k2", k2), ("kl_k3", k3))
    }
    kl, score = float(per_response["kl"]), float(rollout.scores.mean())
    ended = rollout.scores[rollout.finished]
    found = {f"objective/{name}": float(value) for name, value in per_response.items()}
    if len(ended):
        found["objective/scores_ended"] = float(ended.mean())
    if len(ended) > 1:
        found["objective/scores_ended_std"] = float(ended.std(unbiased=False))
    return found | {
        "objective/scores": score,
        "objective/scores_std": float(rollout.scores.std(unbiased=False)),
        "objective/rlhf_reward": score - kl_coef * kl,
        "objective/entropy": float(masked_mean(entropies, mask)),
        "objective/eos_rate": float(rollout.finished.float().mean()),
        "objective/response_length": float(mask.sum(1).float().mean()),
        "objective/kl_coef": kl_coef,
    }


def explained(rollout: Rollout, returns: Tensor) -> dict[str, float]:
    """Share of the returns' variance that the value model had foreseen."""
    mask = rollout.response_mask
    left = masked_var(returns - rollout.values, mask) / (masked_var(returns, mask) + 1e-8)
    return {"val/explained_variance": 1 - float(left)}

"""PPO as its algorithm box reads: collect, shape, estimate, learn, adapt the price of KL."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from rlhf_cli.config.schema import KL, PPO, KLController
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.estimates import ema_update_
from rlhf_cli.core.kl import AdaptiveKL, FixedKL, k1, k2, k3
from rlhf_cli.core.masking import masked_mean, masked_sum, masked_var, whiten
from rlhf_cli.core.returns import gae, shaped_rewards
from rlhf_cli.stages.ppo.collect import collect
from rlhf_cli.stages.ppo.guards import Watch, check_start, over
from rlhf_cli.stages.ppo.learn import Pretrain, learn
from rlhf_cli.stages.ppo.players import Ending, Players
from rlhf_cli.stages.setting import lr_factor
from rlhf_cli.telemetry.recorder import Recorder


@dataclass(slots=True, kw_only=True)
class Trained:
    """average: the exponential average of the policy's weights, where one was kept."""

    average: dict[str, Tensor] | None
    last: dict[str, float]


def num_iterations(cfg: PPO) -> int:
    return cfg.total_episodes // cfg.batch.rollout


def kl_controller(cfg: KL) -> FixedKL | AdaptiveKL:
    if cfg.controller is KLController.adaptive:
        return AdaptiveKL(cfg.coef, target=cfg.target, horizon=cfg.horizon)
    return FixedKL(cfg.coef)


def train(
    players: Players,
    prompts: Iterator[PromptBatch],
    ending: Ending,
    cfg: PPO,
    recorder: Recorder,
    *,
    seed: int,
    pretrain: Pretrain | None = None,
) -> Trained:
    """Run all iterations. Sampling and minibatch order are drawn from `seed`."""
    generator = players.device.generator(seed)
    controller, watch = kl_controller(cfg.kl), Watch(cfg.alarms)
    average = snapshot(players) if cfg.ema_decay is not None else None
    metrics: dict[str, float] = {}
    for iteration in range(num_iterations(cfg)):
        clock = Clock()
        batch = next(prompts).to(players.device.torch)
        rollout, entropies = collect(players, batch, ending, cfg, generator)
        objective = describe(rollout, entropies, controller.coef)
        if iteration == 0:
            check_start(rollout, players.device.dtype)
        clock.lap("time/rollout")
        advantages, returns = credit(rollout, controller.coef, cfg)
        learned = learn(
            players,
            rollout,
            advantages,
            returns,
            cfg,
            lr_factor=factor(iteration, cfg),
            generator=generator,
            pretrain=pretrain,
            after_step=lambda: keep_average(average, players, cfg),
        )
        controller.update(objective["objective/kl"], len(batch.tokens))
        clock.lap("time/learn")
        metrics = objective | learned.means() | explained(rollout, returns) | clock.laps
        metrics |= progress(iteration, players, cfg)
        recorder.log(metrics, iteration + 1)
        for alarm in watch.alarming(metrics):
            recorder.warn(alarm)
        if over(objective["objective/kl"], cfg.kl_stop.run):
            recorder.warn(f"stopped after iteration {iteration + 1}: KL above ppo.kl_stop.run")
            break
    return Trained(average=average, last=metrics)


class Clock:
    """Seconds since the last lap, by name."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def keep_average(average: dict[str, Tensor] | None, players: Players, cfg: PPO) -> None:
    """After every optimizer step, where an average is kept at all."""
    if average is not None:
        ema_update_(average.values(), players.policy.model.state_dict().values(), cfg.ema_decay)


def progress(iteration: int, players: Players, cfg: PPO) -> dict[str, float]:
    return {
        "ppo/episodes": float((iteration + 1) * cfg.batch.rollout),
        "ppo/lr": players.policy.peak_lr * factor(iteration, cfg),
    } | players.device.peak_memory()


def snapshot(players: Players) -> dict[str, Tensor]:
    state = players.policy.model.state_dict()
    return {name: weight.detach().clone() for name, weight in state.items()}


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
    return {f"objective/{name}": float(value) for name, value in per_response.items()} | {
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

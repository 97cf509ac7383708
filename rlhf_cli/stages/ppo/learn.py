"""Learn from a rollout: inner epochs of minibatches, each one clipped step of policy and value."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_cli.config.schema import PPO
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.losses import policy_loss, value_loss
from rlhf_cli.models.forward import ModelInputs, response_logprobs, response_values
from rlhf_cli.runtime.watchdog import alive
from rlhf_cli.stages import work
from rlhf_cli.stages.ppo.guards import check_first_ratio, over, require_finite
from rlhf_cli.stages.ppo.microbatches import microbatches
from rlhf_cli.stages.ppo.players import Players

# Adds the gradient of the pretraining loss to the policy and returns that loss (PPO-ptx).
Pretrain = Callable[[], float]


@dataclass(slots=True)
class Learned:
    """A row of metrics for every minibatch of this iteration so far; `means` is what is logged."""

    rows: list[dict[str, float]] = field(default_factory=list)
    stopped_early: bool = False

    def means(self) -> dict[str, float]:
        names = self.rows[0] if self.rows else []
        means = {name: sum(row[name] for row in self.rows) / len(self.rows) for name in names}
        return means | {"policy/steps": len(self.rows), "policy/stopped_early": self.stopped_early}


def learn(
    players: Players,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    cfg: PPO,
    *,
    orders: list[Tensor],
    lr_factor: float,
    learned: Learned,
    pretrain: Pretrain | None,
    after_step: Callable[[], None],
) -> None:
    """PPO's inner loop, from the first minibatch that `learned` has no row of.

    advantages, returns (B, R) . orders: a permutation of the rows for every inner epoch .
    `after_step` follows every optimizer step.
    """
    minibatches = [index for order in orders for index in order.split(cfg.batch.minibatch)]
    for index in minibatches[len(learned.rows) :]:
        index = index.to(rollout.scores.device)
        row = minibatch(players, rollout, advantages, returns, index, cfg, pretrain)
        if not learned.rows:
            check_first_ratio(abs(row["val/ratio"] - 1), players.device.dtype)
        if over(row["policy/approxkl_avg"], cfg.kl_stop.iteration):
            players.policy.discard()
            players.value.discard()
            learned.stopped_early = True
            return
        row["policy/grad_norm"] = players.policy.step(lr_factor)
        row["val/grad_norm"] = players.value.step(lr_factor)
        learned.rows.append(row)
        read = work.of_minibatch(players.policy, players.value, rollout.select(index))
        players.clock.count(**read)
        after_step()


def minibatch(
    players: Players,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    index: Tensor,
    cfg: PPO,
    pretrain: Pretrain | None,
) -> dict[str, float]:
    """Gradients of one minibatch, summed over its microbatches; every term is per token of the whole."""
    num_tokens = rollout.response_mask[index].sum()
    totals: dict[str, Tensor] = {}
    parts = microbatches(players, rollout, index, cfg.batch)
    for number, rows in enumerate(parts, start=1):
        heartbeat("learning from a rollout")
        piece = rollout.select(rows).trim()
        columns = slice(0, piece.responses.shape[1])
        terms = clipped_step(
            players,
            piece,
            advantages[rows, columns],
            returns[rows, columns],
            num_tokens,
            cfg,
            last=number == len(parts),
            closes=pretrain is None,
        )
        totals = {name: totals.get(name, 0) + term for name, term in terms.items()}
    metrics = players.world.sum_scalars({name: float(value) for name, value in totals.items()})
    if pretrain is not None:
        metrics["loss/ptx"] = pretrain()
    total = sum(value for name, value in metrics.items() if name.startswith("loss/"))
    require_finite(torch.tensor(total), "loss", rollout.select(index))
    return metrics


def clipped_step(
    players: Players,
    piece: Rollout,
    advantages: Tensor,
    returns: Tensor,
    num_tokens: Tensor,
    cfg: PPO,
    *,
    last: bool = True,
    closes: bool = True,
) -> dict[str, Tensor]:
    """Backward through both clipped losses of one microbatch.

    last: of this minibatch. closes: nothing else is added to the policy's gradient after it.
    """
    mask, inputs = piece.response_mask, ModelInputs(piece)
    logprobs, _ = players.policy(response_logprobs, inputs, temperature=cfg.temperature)
    policy = policy_loss(
        logprobs, piece.logprobs, advantages, mask, clip_eps=cfg.clip_eps, num_tokens=num_tokens
    )
    players.policy.backward(policy.loss, last=last and closes)
    values = players.value(response_values, inputs)
    value = value_loss(
        values, piece.values, returns, mask, clip_eps=cfg.value_clip_eps, num_tokens=num_tokens
    )
    players.value.backward(cfg.vf_coef * value.loss, last=last)
    return {
        "loss/policy_avg": policy.loss.detach(),
        "loss/value_avg": value.loss.detach(),
        "policy/approxkl_avg": policy.approx_kl.detach(),
        "policy/clipfrac_avg": policy.clip_frac.detach(),
        "val/ratio": policy.ratio.detach(),
        "val/clipfrac_avg": value.clip_frac.detach(),
    }

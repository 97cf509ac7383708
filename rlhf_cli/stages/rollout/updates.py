"""Learn from a rollout: inner epochs of minibatches, the gradient of each summed over microbatches."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rlhf_cli.config.schema import RolloutBatch
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.randomness import permutation
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.rollout.checks import check_first_ratio, over, require_finite
from rlhf_cli.stages.rollout.collect import microbatches
from rlhf_cli.stages.rollout.models import OnPolicy, RolloutModels
from rlhf_cli.stages.training import work_on_minibatch

Metrics = dict[str, float]
# Run backward through the losses of (microbatch, is it the last?); return what they report.
Backward = Callable[[Rollout, bool], dict[str, Tensor]]


def minibatches_of(num_rows: int, cfg: OnPolicy, seed: int, iteration: int) -> list[Tensor]:
    """Return the rows of every minibatch: each inner epoch has an order of its own."""
    orders = (
        permutation(num_rows, seed, "minibatches", iteration, epoch)
        for epoch in range(cfg.inner_epochs)
    )
    return [index for order in orders for index in order.split(cfg.batch.minibatch)]


def take_steps(
    models: RolloutModels,
    rollout: Rollout,
    minibatches: Sequence[Tensor],
    cfg: OnPolicy,
    gradients_of: Callable[[Rollout], Metrics],
    *,
    done: int,
    lr_factor: float,
) -> Iterator[Metrics]:
    """Take one optimizer step of every trained model per minibatch; yield the metrics of each.

    Ends early, without a step, where the policy has moved by more than kl_stop.iteration.
    minibatches: rows of the rollout, those of all inner epochs . gradients_of: adds the gradients of a
    minibatch to the models . done: how many minibatches were stepped on before an interruption.
    """
    for number, rows in enumerate(minibatches[done:], start=done):
        with models.clock.phase("learn"):
            minibatch = rollout.select(rows.to(rollout.scores.device))
            metrics = gradients_of(minibatch)
            if number == 0:
                check_first_ratio(abs(metrics["val/ratio"] - 1), models.device.dtype)
            if over(metrics["policy/approxkl_avg"], cfg.kl_stop.iteration):
                for engine in models.trained.values():
                    engine.discard()
                return
            for name, engine in models.trained.items():
                metrics[f"{name}/grad_norm"] = engine.step(lr_factor)
        models.clock.count(**work_on_minibatch(models.trained.values(), minibatch))
        yield metrics


def summed_gradients(
    models: RolloutModels, minibatch: Rollout, batch: RolloutBatch, backward: Backward
) -> Metrics:
    """Sum the gradients of a minibatch over its microbatches, and what they report over all processes."""
    totals: dict[str, Tensor] = {}
    indices = microbatches(models, minibatch, batch)
    for number, rows in enumerate(indices, start=1):
        heartbeat("learning from a rollout")
        terms = backward(minibatch.select(rows).trim(), number == len(indices))
        totals = {name: totals.get(name, 0) + term for name, term in terms.items()}
    return models.policy.world.sum_scalars({name: float(value) for name, value in totals.items()})


def require_finite_losses(metrics: Metrics, minibatch: Rollout) -> None:
    """Stop where a loss of the minibatch is NaN or infinite, before it reaches the weights."""
    total = sum(value for name, value in metrics.items() if name.startswith("loss/"))
    require_finite(torch.tensor(total), "loss", minibatch)


def mean_metrics(rows: list[Metrics], num_minibatches: int) -> Metrics:
    """Return the means over the optimizer steps of an iteration, and whether it was stopped early."""
    names = rows[0] if rows else []
    means = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    return means | {
        "policy/steps": len(rows),
        "policy/stopped_early": len(rows) < num_minibatches,
    }

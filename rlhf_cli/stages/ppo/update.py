"""Update policy and value model on a rollout: inner epochs of minibatches, one clipped step on each."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlhf_cli.config.schema import PPO
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.losses import policy_loss, value_loss
from rlhf_cli.models.forward import ModelInputs, response_logprobs, response_values
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.ppo.checks import check_first_ratio, over, require_finite
from rlhf_cli.stages.ppo.models import PPOModels
from rlhf_cli.stages.ppo.rollout import microbatches
from rlhf_cli.stages.training import work_on_minibatch

Metrics = dict[str, float]


def updates(
    models: PPOModels,
    rollout: Rollout,
    minibatches: Sequence[Tensor],
    cfg: PPO,
    *,
    done: int,
    lr_factor: float,
) -> Iterator[Metrics]:
    """Take one optimizer step of policy and value model per minibatch; yield the metrics of each.

    Ends early, without a step, where the policy has moved by more than ppo.kl_stop.iteration.
    minibatches: rows of the rollout, those of all inner epochs . done: how many of them were stepped on
    before an interruption.
    """
    for number, rows in enumerate(minibatches[done:], start=done):
        with models.clock.phase("learn"):
            minibatch = rollout.select(rows.to(rollout.scores.device))
            metrics = accumulate_gradients(models, minibatch, cfg)
            if number == 0:
                check_first_ratio(abs(metrics["val/ratio"] - 1), models.device.dtype)
            if over(metrics["policy/approxkl_avg"], cfg.kl_stop.iteration):
                models.policy.discard()
                models.value_model.discard()
                return
            metrics["policy/grad_norm"] = models.policy.step(lr_factor)
            metrics["val/grad_norm"] = models.value_model.step(lr_factor)
        models.clock.count(**work_on_minibatch(models.policy, models.value_model, minibatch))
        yield metrics


def accumulate_gradients(models: PPOModels, minibatch: Rollout, cfg: PPO) -> Metrics:
    """Sum the gradients of a minibatch over its microbatches; every term is per token of the whole."""
    num_tokens = minibatch.response_mask.sum()
    totals: dict[str, Tensor] = {}
    indices = microbatches(models, minibatch, cfg.batch)
    for number, rows in enumerate(indices, start=1):
        heartbeat("learning from a rollout")
        last = number == len(indices)
        terms = ppo_microbatch_step(
            models,
            minibatch.select(rows).trim(),
            num_tokens,
            cfg,
            last=last,
            last_of_policy=last and models.ptx is None,
        )
        totals = {name: totals.get(name, 0) + term for name, term in terms.items()}
    sums = {name: float(value) for name, value in totals.items()}
    metrics = models.policy.world.sum_scalars(sums)
    if models.ptx is not None:
        metrics["loss/ptx"] = models.ptx.add_gradient(models.policy)
    total = sum(value for name, value in metrics.items() if name.startswith("loss/"))
    require_finite(torch.tensor(total), "loss", minibatch)
    return metrics


def ppo_microbatch_step(
    models: PPOModels,
    microbatch: Rollout,
    num_tokens: Tensor,
    cfg: PPO,
    *,
    last: bool = True,
    last_of_policy: bool = True,
) -> dict[str, Tensor]:
    """Run backward through both clipped losses of one microbatch; return what they report.

    last: nothing is added to the value model's gradient after it; last_of_policy: to the policy's.
    """
    mask, inputs = microbatch.response_mask, ModelInputs(microbatch)
    logprobs, _ = models.policy(response_logprobs, inputs, temperature=cfg.temperature)
    policy = policy_loss(
        logprobs,
        microbatch.logprobs,
        microbatch.advantages,
        mask,
        clip_eps=cfg.clip_eps,
        num_tokens=num_tokens,
    )
    models.policy.backward(policy.loss, last=last_of_policy)
    values = models.value_model(response_values, inputs)
    value = value_loss(
        values,
        microbatch.values,
        microbatch.returns,
        mask,
        clip_eps=cfg.value_clip_eps,
        num_tokens=num_tokens,
    )
    models.value_model.backward(cfg.vf_coef * value.loss, last=last)
    return {
        "loss/policy_avg": policy.loss.detach(),
        "loss/value_avg": value.loss.detach(),
        "policy/approxkl_avg": policy.approx_kl.detach(),
        "policy/clipfrac_avg": policy.clip_frac.detach(),
        "val/ratio": policy.ratio.detach(),
        "val/clipfrac_avg": value.clip_frac.detach(),
    }

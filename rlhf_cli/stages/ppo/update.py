"""The update of PPO: one clipped step of policy and value model per minibatch."""

from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor

from rlhf_cli.config.schema import PPO
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.losses import policy_loss, value_loss
from rlhf_cli.models.forward import ModelInputs, response_logprobs, response_values
from rlhf_cli.stages.ppo.models import PPOModels
from rlhf_cli.stages.rollout.updates import (
    Metrics,
    require_finite_losses,
    summed_gradients,
    take_steps,
)


def updates(
    models: PPOModels,
    rollout: Rollout,
    minibatches: Sequence[Tensor],
    cfg: PPO,
    *,
    done: int,
    lr_factor: float,
) -> Iterator[Metrics]:
    """Take one optimizer step of policy and value model per minibatch; yield the metrics of each."""
    gradients_of = partial(accumulate_gradients, models, cfg=cfg)
    return take_steps(
        models, rollout, minibatches, cfg, gradients_of, done=done, lr_factor=lr_factor
    )


def accumulate_gradients(models: PPOModels, minibatch: Rollout, cfg: PPO) -> Metrics:
    """Add the gradients of a minibatch; every term is per token of the whole."""
    num_tokens = minibatch.response_mask.sum()
    backward = partial(ppo_microbatch_step, models, num_tokens=num_tokens, cfg=cfg)
    metrics = summed_gradients(models, minibatch, cfg.batch, backward)
    if models.ptx is not None:
        metrics["loss/ptx"] = models.ptx.add_gradient(models.policy)
    require_finite_losses(metrics, minibatch)
    return metrics


def ppo_microbatch_step(
    models: PPOModels, microbatch: Rollout, last: bool, *, num_tokens: Tensor, cfg: PPO
) -> dict[str, Tensor]:
    """Run backward through both clipped losses of one microbatch; return what they report.

    last: nothing is added to the value model's gradient after it, nor, without PPO-ptx, to the policy's.
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
    models.policy.backward(policy.loss, last=last and models.ptx is None)
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

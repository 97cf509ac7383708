"""The update of a policy gradient: the clipped loss, with the KL of place=loss, per minibatch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from rlhf_cli.config.schema import KLPlace, PolicyGradient, Ratio
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.losses import importance_ratios, kl_loss, policy_loss, token_weights
from rlhf_cli.models.forward import ModelInputs, response_logprobs
from rlhf_cli.stages.rollout.models import RolloutModels
from rlhf_cli.stages.rollout.updates import (
    Metrics,
    require_finite_losses,
    summed_gradients,
    take_steps,
)


@dataclass(slots=True, kw_only=True)
class Step:
    """What the loss of a minibatch is divided by: its responses, their tokens, of all processes."""

    num_responses: Tensor
    num_tokens: Tensor


def updates(
    models: RolloutModels,
    rollout: Rollout,
    minibatches: Sequence[Tensor],
    cfg: PolicyGradient,
    *,
    done: int,
    lr_factor: float,
) -> Iterator[Metrics]:
    """Take one optimizer step of the policy per minibatch; yield the metrics of each."""
    gradients_of = partial(accumulate_gradients, models, cfg=cfg)
    return take_steps(
        models, rollout, minibatches, cfg, gradients_of, done=done, lr_factor=lr_factor
    )


def learned(rollout: Rollout, cfg: PolicyGradient) -> Tensor:
    """Return the tokens (B, R) that are learned from; drop_unfinished: those of finished responses."""
    if not cfg.drop_unfinished:
        return rollout.response_mask
    return rollout.response_mask & rollout.finished[:, None]


def accumulate_gradients(models: RolloutModels, minibatch: Rollout, cfg: PolicyGradient) -> Metrics:
    """Add the gradient of a minibatch, averaged over the whole of it."""
    mask = learned(minibatch, cfg)
    step = Step(
        num_responses=mask.any(dim=1).sum().clamp(min=1), num_tokens=mask.sum().clamp(min=1)
    )
    backward = partial(microbatch_step, models, step=step, cfg=cfg)
    metrics = summed_gradients(models, minibatch, cfg.batch, backward)
    require_finite_losses(metrics, minibatch)
    return metrics


def microbatch_step(
    models: RolloutModels, microbatch: Rollout, last: bool, *, step: Step, cfg: PolicyGradient
) -> dict[str, Tensor]:
    """Run backward through the loss of one microbatch; return what it reports."""
    mask, by_sequence = learned(microbatch, cfg), cfg.ratio is Ratio.sequence
    logprobs, _ = models.policy(
        response_logprobs, ModelInputs(microbatch), temperature=cfg.temperature
    )
    weights = token_weights(
        mask,
        average=cfg.average.name,
        num_responses=step.num_responses,
        num_tokens=step.num_tokens,
    )
    policy = policy_loss(
        logprobs,
        microbatch.logprobs,
        microbatch.advantages,
        mask,
        clip_eps=cfg.clip_eps,
        clip_eps_high=cfg.clip_eps_high,
        by_sequence=by_sequence,
        num_tokens=step.num_tokens,
        weights=weights,
    )
    loss = policy.loss
    found = {
        "loss/policy_avg": policy.loss.detach(),
        "policy/approxkl_avg": policy.approx_kl.detach(),
        "policy/clipfrac_avg": policy.clip_frac.detach(),
        "val/ratio": policy.ratio.detach(),
    }
    if cfg.has_reference and cfg.kl.place is KLPlace.loss:
        ratio = None
        if cfg.kl.weighted:
            _, ratio = importance_ratios(
                logprobs, microbatch.logprobs, mask, by_sequence=by_sequence
            )
        divergence = cfg.kl.coef * kl_loss(
            logprobs,
            microbatch.ref_logprobs,
            mask,
            estimator=cfg.kl.estimator.name,
            weights=weights,
            ratio=ratio,
        )
        loss = loss + divergence
        found["loss/kl"] = divergence.detach()
    models.policy.backward(loss, last=last)
    return found

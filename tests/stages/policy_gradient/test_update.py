"""The gradient of a minibatch: every key of the loss changes it, nothing else does."""

from dataclasses import fields, replace

import pytest
import torch

from rlhf_cli.config.schema import Average, KLEstimator, KLPlace, Ratio, RolloutBatch
from rlhf_cli.core.batches import Rollout
from rlhf_cli.stages.policy_gradient.update import accumulate_gradients
from rlhf_cli.stages.ppo.update import accumulate_gradients as accumulate_ppo
from tests.support.policy_gradients import networks, settings
from tests.support.ppo_networks import cast
from tests.support.tabular import kl_penalty, ppo

IN_LOSS = kl_penalty(place=KLPlace.loss, estimator=KLEstimator.k3)


def vars_of(rollout: Rollout) -> dict[str, torch.Tensor]:
    return {field.name: getattr(rollout, field.name) for field in fields(rollout)}


def gradient(rollout: Rollout, cfg, models=None) -> torch.Tensor:
    models = models or networks(cfg)
    accumulate_gradients(models, rollout, cfg)
    return torch.cat([p.grad.flatten() for p in models.policy.model.parameters()])


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ({}, {"clip_eps": 0.1}),
        ({}, {"clip_eps_high": 0.4}),
        ({}, {"average": Average.mean}),
        ({}, {"average": Average.token}),
        ({}, {"ratio": Ratio.sequence}),
        ({}, {"drop_unfinished": True}),
        ({}, {"temperature": 0.7}),
        ({}, {"kl": IN_LOSS}),
        ({"kl": IN_LOSS}, {"kl": replace(IN_LOSS, coef=0.3)}),
        ({"kl": IN_LOSS}, {"kl": replace(IN_LOSS, estimator=KLEstimator.k2)}),
        ({"kl": IN_LOSS}, {"kl": replace(IN_LOSS, weighted=True)}),
    ],
    ids=lambda found: " ".join(found),
)
def test_every_key_of_the_loss_changes_the_gradient(rollout, base, changes):
    one = gradient(rollout, settings(**base))
    other = gradient(rollout, settings(**(base | changes)))
    assert (one - other).norm() > 1e-3 * one.norm()


def test_a_kl_in_the_reward_is_no_part_of_the_loss(rollout):
    cfg = settings()
    assert "loss/kl" not in accumulate_gradients(networks(cfg), rollout, cfg)
    far = replace(rollout, ref_logprobs=rollout.ref_logprobs - 1)
    assert torch.equal(gradient(rollout, cfg), gradient(far, cfg))


@pytest.mark.parametrize("average", Average)
def test_gradients_do_not_depend_on_the_microbatch(rollout, average):
    found = []
    for size in (16, 1, 5):
        batch = RolloutBatch(rollout=16, minibatch=16, microbatch=size, max_tokens=None)
        cfg = settings(average=average, batch=batch, kl=IN_LOSS, drop_unfinished=True)
        found.append(gradient(rollout, cfg))
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert torch.allclose(found[0], found[2], atol=1e-6)


def test_dropped_responses_are_neither_in_the_loss_nor_in_its_denominator(rollout):
    finished = rollout.select(rollout.finished)
    for average in Average:
        cfg = settings(average=average, drop_unfinished=True)
        dropped = gradient(rollout, cfg)
        assert torch.allclose(dropped, gradient(finished, cfg), atol=1e-6)


def test_a_minibatch_without_a_finished_response_has_no_gradient(rollout):
    none = replace(rollout, finished=torch.zeros_like(rollout.finished))
    assert not gradient(none, settings(drop_unfinished=True)).any()


def test_ppo_without_values_has_the_gradient_of_reinforce_on_one_token(rollout):
    """Values 0, gamma = lambda = 1, no whitening: the advantage is the reward (baseline none)."""
    tensors = {name: x for name, x in vars_of(rollout).items() if x.shape == rollout.values.shape}
    short = replace(rollout, **{name: x[:, :1] for name, x in tensors.items()})
    cfg = settings(average=Average.sum)
    own = gradient(short, cfg)
    models = cast(cfg=ppo(batch=cfg.batch))
    accumulate_ppo(models, short, ppo(batch=cfg.batch))
    other = torch.cat([p.grad.flatten() for p in models.policy.model.parameters()])
    assert torch.allclose(own, other, atol=1e-6)

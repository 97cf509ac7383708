"""The iterations of a policy gradient, and what its section decides."""

from dataclasses import replace

import pytest
import torch

from rlhf_cli.config.schema import Baseline, KLEstimator, KLPlace, KLStop, Scale
from rlhf_cli.core.baselines import SCALE_EPS
from rlhf_cli.stages.policy_gradient.loop import rewards_of, train, with_advantages
from rlhf_cli.stages.policy_gradient.stage import beta_note
from tests.support.policy_gradients import networks, prompts, settings
from tests.support.ppo_networks import PARAMS
from tests.support.tabular import Silent, kl_penalty


def trained(cfg, models=None):
    recorder, models = Silent(), models or networks(cfg)
    train(models, prompts(cfg), PARAMS, cfg, recorder, stage="rloo", seed=0)
    return recorder, models


def weights(models):
    return torch.cat([p.detach().flatten() for p in models.policy.model.parameters()])


def test_the_reward_is_the_score_minus_the_kl_of_the_response(rollout):
    gap = (rollout.logprobs - rollout.ref_logprobs) * rollout.response_mask
    for coef in (0.5, 0.2):
        found = rewards_of(rollout, settings(kl=kl_penalty(coef=coef)))
        assert torch.allclose(found, rollout.scores - coef * gap.sum(1), atol=1e-5)
    in_loss = kl_penalty(place=KLPlace.loss, estimator=KLEstimator.k3)
    assert torch.equal(rewards_of(rollout, settings(kl=in_loss)), rollout.scores)


@pytest.mark.parametrize(
    "changes",
    [
        {"baseline": Baseline.none},
        {"baseline": Baseline.group},
        {"baseline": Baseline.batch},
        {"scale": Scale.group},
        {"scale": Scale.batch},
        {"group": 2},
    ],
)
def test_baseline_scale_and_group_decide_the_advantages(rollout, changes):
    rewards = torch.randn(16, generator=torch.Generator().manual_seed(0))
    found = [
        with_advantages(rollout, rewards, settings(**some), None).advantages
        for some in ({}, changes)
    ]
    assert not torch.allclose(*found, atol=1e-3)
    for one in found:  # one advantage per response, none at pads
        assert (one == one[:, :1] * rollout.response_mask).all()


def test_the_advantages_of_rloo_are_the_rewards_minus_those_of_the_others(rollout):
    rewards = torch.tensor([1.0, 2.0, 3.0, 6.0]).repeat(4)
    found = with_advantages(rollout, rewards, settings(), None).advantages[:, 0]
    assert found.tolist() == pytest.approx([-8 / 3, -4 / 3, 0, 4] * 4, abs=1e-5)
    scaled = with_advantages(rollout, rewards, settings(scale=Scale.group), None).advantages[:, 0]
    assert torch.allclose(scaled, found / (rewards[:4].std() + SCALE_EPS))


def test_a_constant_reward_gives_no_gradient():
    """RLOO at its optimum, where score - beta * KL is the same for every response."""
    cfg = settings(kl=kl_penalty(coef=0.0))
    models = networks(cfg, score=lambda inputs: torch.ones(len(inputs.batch.responses)))
    before = weights(models)
    recorder, _ = trained(cfg, models)
    assert torch.equal(weights(models), before)
    assert recorder.rows[0]["objective/uniform_groups"] == 1.0


def test_the_running_baseline_follows_the_mean_reward():
    cfg = settings(baseline=Baseline.running, total_episodes=48, kl=kl_penalty(coef=0.0))
    recorder, _ = trained(cfg)
    means = [row["objective/scores"] for row in recorder.rows]
    expected = means[0]
    for row, mean in zip(recorder.rows, means, strict=True):
        expected += 0.1 * (mean - expected)
        assert row["objective/baseline"] == pytest.approx(expected)
    _, without = trained(replace(cfg, baseline=Baseline.leave_one_out))
    _, twice = trained(replace(cfg, baseline=Baseline.batch))
    assert not torch.equal(weights(without), weights(twice))


def test_the_stage_ends_above_the_kl_limit_of_the_run():
    cfg = settings(total_episodes=64, kl_stop=KLStop(iteration=None, run=1e-9))
    cfg = replace(cfg, optim=replace(cfg.optim, lr=0.1))
    recorder, _ = trained(cfg)
    assert len(recorder.rows) == 2  # at the first the KL is 0
    assert "stopped after iteration 2: KL above rloo.kl_stop.run" in recorder.warnings


def test_without_a_weight_of_the_kl_no_reference_is_read():
    recorder, models = trained(settings(kl=kl_penalty(coef=0.0)))
    assert models.ref_policy is None
    assert "objective/kl" not in recorder.rows[-1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        (
            {"place": KLPlace.loss, "estimator": KLEstimator.k3},
            "effective beta 0.667, not kl.coef=0.5",
        ),
    ],
)
def test_the_effective_beta_of_a_group_mean_is_named(changes, expected):
    cfg = settings(baseline=Baseline.group, kl=kl_penalty(**changes))
    notes = beta_note(cfg)
    assert notes == [] if expected is None else expected in notes[0]
    scaled = beta_note(replace(cfg, scale=Scale.group))
    assert notes == [] or "times the deviation" in scaled[0]

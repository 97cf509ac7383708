"""The real code of RLOO and GRPO on the problem of four arms, whose optimum is known."""

import pytest
import torch

from rlhf_cli.config.schema import Average, Baseline, KLEstimator, KLPlace, Scale
from rlhf_cli.stages.policy_gradient.loop import train
from tests.support.tabular import (
    PARAMS,
    Silent,
    arm_probs,
    gradient_models,
    kl_penalty,
    policy_gradient,
    prompts,
)

REF = torch.tensor([0.1, 0.2, 0.3, 0.4])
REWARDS = torch.tensor([1.0, 0.5, 0.0, -1.0])
# pi* of beta 1/2, and of 2/3, computed independently in double precision
HALF = [0.451462, 0.332167, 0.183296, 0.033075]
TWO_THIRDS = [0.355458, 0.335813, 0.237940, 0.070789]
IN_LOSS = {"place": KLPlace.loss, "estimator": KLEstimator.k3, "weighted": True}
GROUP = {"baseline": Baseline.group, "average": Average.mean}


@pytest.mark.parametrize(
    ("changes", "penalty", "expected"),
    [
        pytest.param({}, {}, HALF, id="rloo"),
        pytest.param(GROUP, {}, HALF, id="grpo", marks=pytest.mark.slow),
        pytest.param({}, IN_LOSS, HALF, id="rloo-kl-loss", marks=pytest.mark.slow),
        pytest.param(GROUP, IN_LOSS, TWO_THIRDS, id="grpo-kl-loss"),
        pytest.param({"group": 1, "baseline": Baseline.running}, {}, HALF, id="reinforce"),
    ],
)
def test_policy_gradients_reach_the_optimum_of_their_effective_beta(changes, penalty, expected):
    """A group's own mean shrinks the rewards' gradient by 3/4, a KL in the loss is not shrunk."""
    cfg = policy_gradient(total_episodes=256 * 60, kl=kl_penalty(**penalty), **changes)
    models = gradient_models(REF, REWARDS, cfg)
    train(models, prompts(256 // cfg.group), PARAMS, cfg, Silent(), stage="rloo", seed=3)
    assert torch.allclose(arm_probs(models.policy.model), torch.tensor(expected), atol=1.5e-2)


def test_without_a_kl_penalty_no_reference_is_needed_and_the_best_arm_wins():
    cfg = policy_gradient(total_episodes=256 * 30, kl=kl_penalty(coef=0.0), scale=Scale.group)
    models, recorder = gradient_models(REF, REWARDS, cfg), Silent()
    train(models, prompts(64), PARAMS, cfg, recorder, stage="grpo", seed=3)
    assert float(arm_probs(models.policy.model)[0]) > 0.9
    assert "objective/kl" not in recorder.rows[-1]

"""The real PPO code on problems whose optimum is known in closed form."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.config.schema import KL, PTX, KLController
from rlhf_cli.data.encode import EncodedDemonstration
from rlhf_cli.stages.ppo.loop import train
from rlhf_cli.stages.ppo.stage import pretraining_loss
from tests.support.small_stages import little
from tests.support.tabular import (
    PARAMS,
    PROMPT,
    Silent,
    arm_probs,
    models,
    optimum,
    ppo,
    prompts,
)

REF = torch.tensor([0.1, 0.2, 0.3, 0.4])
REWARDS = torch.tensor([1.0, 0.5, 0.0, -1.0])
ITERATIONS = 60
# pi*, KL and J* of this problem, computed independently in double precision
KNOWN = {
    0.5: ([0.451462, 0.332167, 0.183296, 0.033075], 0.676260, 0.246340),
    1.0: ([0.259199, 0.314424, 0.286062, 0.140315], 0.228522, 0.047574),
}


def kl(coef):
    return KL(coef=coef, controller=KLController.fixed, target=6.0, horizon=10000)


@pytest.mark.parametrize("beta", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_ppo_converges_to_the_kl_regularised_optimum(beta):
    probs, divergence, objective = KNOWN[beta]
    cfg = ppo(total_episodes=256 * ITERATIONS, kl=kl(beta))
    cast, recorder = models(REF, REWARDS, cfg), Silent()
    train(cast, prompts(256), PARAMS, cfg, recorder, seed=3)
    found = arm_probs(cast.policy.model)
    assert torch.allclose(found, torch.tensor(probs), atol=5e-3)
    assert torch.allclose(found, optimum(REF, REWARDS, beta), atol=5e-3)
    tail = recorder.rows[-20:]
    mean = {name: sum(row[name] for row in tail) / len(tail) for name in tail[0]}
    assert mean["objective/kl"] == pytest.approx(divergence, abs=0.05)
    # at the optimum r - beta k1 is the same for every response, so even one rollout shows J*
    assert tail[-1]["objective/rlhf_reward"] == pytest.approx(objective, abs=3e-3)


@pytest.mark.slow
def test_ppo_converges_to_the_optimum_of_two_arms():
    ref, rewards = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    cfg = ppo(total_episodes=256 * ITERATIONS, kl=kl(0.5))
    cast = models(ref, rewards, cfg)
    train(cast, prompts(256), PARAMS, cfg, Silent(), seed=3)
    assert float(arm_probs(cast.policy.model)[0]) == pytest.approx(0.880797, abs=5e-3)


@pytest.mark.slow
def test_a_shift_of_the_reward_does_not_change_the_optimum():
    cfg = ppo(total_episodes=256 * ITERATIONS, kl=kl(0.5), whiten_advantages=True)
    cast = models(REF, REWARDS + 3.0, cfg)
    train(cast, prompts(256), PARAMS, cfg, Silent(), seed=3)
    assert torch.allclose(arm_probs(cast.policy.model), optimum(REF, REWARDS, 0.5), atol=1e-2)


@pytest.mark.parametrize(
    ("coef", "known"),
    [
        (1.0, [0.32553, 0.28967, 0.23622, 0.14858]),
        pytest.param(27.8, [0.25421, 0.25282, 0.25016, 0.24281], marks=pytest.mark.slow),
    ],
)
def test_ppo_ptx_converges_to_its_own_optimum(coef, known):
    """Pretraining text uniform over the arms: pi (R - J) + gamma (q - pi) = 0.

    The pretraining code of the stage reads a text of every arm after the prompt in every step.
    """
    cfg = ppo(total_episodes=256 * ITERATIONS, kl=kl(0.5), ptx=PTX(coef=coef, ratio=1))
    cast = models(REF, REWARDS, cfg)
    texts = [
        EncodedDemonstration(ids=[PROMPT, arm], loss_mask=[False, True], record=None)
        for arm in range(4)
    ]
    context = SimpleNamespace(
        cfg=replace(little(), ppo=cfg),
        encoded=lambda role: SimpleNamespace(train=texts, print_report=lambda recorder: None),
        renderer=SimpleNamespace(pad_id=0),
        world=cast.policy.world,
        clock=cast.clock,
    )
    cast.ptx = pretraining_loss(context, cast.policy, Silent())
    train(cast, prompts(256), PARAMS, cfg, Silent(), seed=3)
    assert torch.allclose(arm_probs(cast.policy.model), torch.tensor(known), atol=1e-2)

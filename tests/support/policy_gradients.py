"""Small networks, settings and prompts, as policy gradients take them."""

from dataclasses import replace

from rlhf_cli.config.schema import PolicyGradient, RolloutBatch
from rlhf_cli.models.forward import response_scores
from rlhf_cli.models.load import freeze
from rlhf_cli.stages.rollout.models import RolloutModels
from tests.support.ppo_networks import batch
from tests.support.tabular import CPU, engine, network, policy_gradient
from tests.support.tiny_models import causal, scalar

SIXTEEN = RolloutBatch(rollout=16, minibatch=16, microbatch=16, max_tokens=None)


def settings(**changes) -> PolicyGradient:
    return policy_gradient(
        **({"total_episodes": 32, "batch": SIXTEEN, "inner_epochs": 1} | changes)
    )


def networks(cfg: PolicyGradient, score=None) -> RolloutModels:
    reward = freeze(scalar("llama", seed=9, sharpness=3.0))
    return RolloutModels(
        policy=engine(causal("llama", seed=0, sharpness=3.0), cfg.optim, ema_decay=cfg.ema_decay),
        ref_policy=network(causal("llama", seed=0, sharpness=3.0)) if cfg.has_reference else None,
        scores=(score or (lambda inputs: response_scores(reward, inputs)),),
        device=CPU,
    )


def prompts(cfg: PolicyGradient):
    """Yield batches of prompts without end, each with its own."""
    number = 0
    whole = batch(64)
    while True:
        num = cfg.batch.rollout // cfg.group
        index = [(number * num + i) % 64 for i in range(num)]
        number += 1
        yield replace(whole, tokens=whole.tokens[index], mask=whole.mask[index], index=index)

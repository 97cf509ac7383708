"""Four small networks and a batch of prompts, as PPO takes them."""

from rlhf_cli.core.batches import PromptBatch
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.forward import response_scores
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.models.load import freeze
from rlhf_cli.stages.ppo.models import PPOModels
from tests.support.tabular import CPU, engine, network, ppo
from tests.support.tiny_models import causal, ragged, scalar

PARAMS = SamplingParams(max_new_tokens=8, temperature=1.0, end_ids=[1, 2, 3, 4], pad_id=0)


def cast(name="llama", score=None, cfg=None, policy_seed=0):
    cfg = cfg or ppo()
    reward = freeze(scalar(name, seed=9, sharpness=3.0))

    def by_model(inputs):
        return response_scores(reward, inputs)

    return PPOModels(
        policy=engine(
            causal(name, seed=policy_seed, sharpness=3.0), cfg.optim, ema_decay=cfg.ema_decay
        ),
        value_model=engine(scalar(name, seed=5, sharpness=2.0), cfg.value_optim),
        ref_policy=network(causal(name, seed=0, sharpness=3.0)),
        scores=(score or by_model,),
        device=CPU,
    )


def batch(rows=16):
    tokens, mask = ragged(rows, 6, side="left")
    return PromptBatch(tokens=tokens, mask=mask, index=list(range(rows)))


def drawn(rows=16):
    """Return uniform random numbers for the tokens of a rollout."""
    return uniforms(rows, PARAMS.max_new_tokens, 0)

"""Credit over several tokens: PPO on responses whose optimum is known in closed form.

One prompt, a vocabulary of two or three tokens, and a score for every complete response: all
responses can be counted, and the optimum is ref * exp(score / beta) / Z over them (Ziegler et al.
2019). A score that is added at another token than the last, or not propagated to the first, gives
another distribution. Under a discount every token has its own optimum, found by backward induction.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from rlhf_cli.config.schema import KL, KLController, RolloutBatch
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.stages.ppo.loop import train
from rlhf_cli.stages.ppo.models import PPOModels
from tests.support.tabular import (
    CPU,
    PROMPT,
    Silent,
    engine,
    network,
    optim,
    ppo,
    prompts,
)

Distribution = dict[tuple[int, ...], float]
BETA = 1.0
ROWS = 256


def config_of(num_tokens: int) -> GPT2Config:
    """Return a configuration with learned positions, which distinguish equal tokens."""
    return GPT2Config(
        vocab_size=num_tokens,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=8,
        initializer_range=0.3,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=1,
    )


def policy(num_tokens: int) -> GPT2LMHeadModel:
    """Return a random policy, not a uniform one."""
    torch.manual_seed(3)
    return GPT2LMHeadModel(config_of(num_tokens))


@torch.no_grad()
def next_token(model, prefix: tuple[int, ...]) -> Tensor:
    return model(torch.tensor([[PROMPT, *prefix]])).logits[0, -1].softmax(-1)


def responses(num_tokens: int, length: int, end: int | None) -> list[tuple[int, ...]]:
    """Return every response: ended by `end`, or cut at `length`."""
    found = set()
    for tokens in itertools.product(range(num_tokens), repeat=length):
        stop = tokens.index(end) + 1 if end in tokens else length
        found.add(tokens[:stop])
    return sorted(found)


def distribution_of(model, every: list[tuple[int, ...]]) -> Distribution:
    """Return the probability of every response by the chain rule."""
    return {
        one: math.prod(float(next_token(model, one[:i])[token]) for i, token in enumerate(one))
        for one in every
    }


def optimum(ref: Distribution, scores: Distribution, gamma: float = 1.0) -> Distribution:
    """Return the distribution in which no other choice of a token is better.

    Backward induction: the value of a prefix is V = beta log sum of ref exp(gamma V' / beta);
    without a discount this is ref * exp(score / beta) / Z.
    """

    def mass(prefix: tuple[int, ...]) -> float:
        return sum(p for one, p in ref.items() if one[: len(prefix)] == prefix)

    def nexts(prefix: tuple[int, ...]) -> list[tuple[int, ...]]:
        size = len(prefix) + 1
        return sorted({one[:size] for one in ref if one[: size - 1] == prefix})

    def value(prefix: tuple[int, ...]) -> float:
        return scores[prefix] if prefix in ref else BETA * math.log(sum(parts(prefix)))

    def parts(prefix: tuple[int, ...]) -> list[float]:
        return [mass(one) / mass(prefix) * math.exp(carried(one) / BETA) for one in nexts(prefix)]

    def carried(one: tuple[int, ...]) -> float:
        """Return the value of a next prefix; the score of the last token is not discounted."""
        return value(one) if one in ref else gamma * value(one)

    def chosen(one: tuple[int, ...]) -> float:
        prefix = one[:-1]
        return parts(prefix)[nexts(prefix).index(one)] / sum(parts(prefix))

    return {one: math.prod(chosen(one[: i + 1]) for i in range(len(one))) for one in ref}


def train_policy(
    num_tokens: int, length: int, end: int | None, scores: Distribution, **changes
) -> Distribution:
    """Return the distribution of the policy after PPO."""
    iterations = changes.pop("iterations", 40)
    settings = {
        "total_episodes": ROWS * iterations,
        "batch": RolloutBatch(rollout=ROWS, minibatch=ROWS, microbatch=ROWS, max_tokens=None),
        "inner_epochs": 2,
        "kl": KL(coef=BETA, controller=KLController.fixed, target=6.0, horizon=10000),
        "optim": optim(0.01),
        "value_optim": optim(0.03),
        "value_clip_eps": None,
    }
    cfg = ppo(**settings | changes)
    torch.manual_seed(1)
    value = GPT2ForSequenceClassification(config_of(num_tokens))

    def score(inputs) -> Tensor:
        batch = inputs.batch
        rows = [
            tuple(row[mask].tolist())
            for row, mask in zip(batch.responses, batch.response_mask, strict=True)
        ]
        return torch.tensor([scores[row] for row in rows])

    models = PPOModels(
        policy=engine(policy(num_tokens), cfg.optim),
        value_model=engine(value, cfg.value_optim),
        ref_policy=network(policy(num_tokens)),
        scores=(score,),
        device=CPU,
    )
    ending = SamplingParams(
        max_new_tokens=length, temperature=1.0, end_ids=[] if end is None else [end], pad_id=0
    )
    train(models, prompts(ROWS), ending, cfg, Silent(), seed=3)
    return distribution_of(models.policy.model, list(scores))


def scored(every: list[tuple[int, ...]]) -> Distribution:
    """Return random scores of responses, which are no sums over tokens."""
    draw = torch.Generator().manual_seed(4)
    return dict(zip(every, torch.randn(len(every), generator=draw).tolist(), strict=True))


def distance(one: Distribution, other: Distribution) -> float:
    """Return the total variation distance."""
    return 0.5 * sum(abs(one[key] - other[key]) for key in one)


def optimum_without_later_credit(ref: Distribution, scores: Distribution) -> Distribution:
    """Return the distribution of a policy that learns its first token alone."""
    mass: Distribution = {}
    for one, p in ref.items():
        mass[one[:1]] = mass.get(one[:1], 0.0) + p
    mean = dict.fromkeys(mass, 0.0)
    for one, p in ref.items():
        mean[one[:1]] += p / mass[one[:1]] * scores[one]
    weights = {one: p * math.exp(mean[one[:1]] / BETA) for one, p in ref.items()}
    return {one: weight / sum(weights.values()) for one, weight in weights.items()}


def assert_found(num_tokens: int, length: int, end: int | None, changes: dict) -> None:
    every = responses(num_tokens, length, end)
    scores, ref = scored(every), distribution_of(policy(num_tokens), every)
    best = optimum(ref, scores, changes.get("gamma", 1.0))
    assert sum(best.values()) == pytest.approx(1)
    for wrong in (ref, optimum_without_later_credit(ref, scores)):
        assert distance(wrong, best) > 0.2
    assert distance(train_policy(num_tokens, length, end, scores, **changes), best) < 0.04


def test_ppo_finds_the_optimum_over_responses_of_up_to_three_tokens():
    assert_found(2, 3, 1, {})


def test_ppo_finds_the_optimum_under_a_discount():
    assert_found(2, 2, None, {"gamma": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_tokens", "length", "changes"),
    [(3, 2, {}), (2, 3, {"gae_lambda": 0.8, "iterations": 120})],
)
def test_ppo_finds_the_optimum_of_other_shapes(num_tokens, length, changes):
    assert_found(num_tokens, length, None, changes)


def test_the_optimum_without_a_discount_equals_the_closed_form():
    """The closed form is ref * exp(score / beta) / Z."""
    every = responses(3, 3, 1)
    assert len(every) == 15
    scores, ref = scored(every), distribution_of(policy(3), every)
    weights = {one: ref[one] * math.exp(scores[one] / BETA) for one in every}
    total = sum(weights.values())
    known = {one: weight / total for one, weight in weights.items()}
    assert optimum(ref, scores) == pytest.approx(known)
    assert distance(optimum(ref, scores, gamma=0.5), known) > 0.05

"""Answers, their sampled KL and their scores, compared with enumerated sums."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation.respond import (
    Answer,
    kl_to_reference,
    respond,
    response_entropies,
    reward_scores,
)
from rlhf_cli.models.forward import sequence_scores
from rlhf_cli.models.generation import decoding
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.runtime.world import World
from tests.support.tabular import network
from tests.support.tiny_models import VOCAB, causal, scalar

RENDERER = SimpleNamespace(decode_response=lambda ids: " ".join(map(str, ids)))


PARAMS = SamplingParams(max_new_tokens=6, temperature=1.0, end_ids=[1], pad_id=0)


def answers_of(network, prompts, *, batch=4, seed=0, **changes):
    """Return one answer per prompt."""
    params, seeds = replace(PARAMS, **changes), [seed]
    return respond(network, prompts, RENDERER, params, World(), batch=batch, seeds=seeds)[0]


@torch.no_grad()
def test_sampled_kl_equals_the_enumerated_kl():
    """KL(policy || reference) of one-token responses is summed over the vocabulary."""
    models = [causal("llama", seed, sharpness=4.0) for seed in (0, 1)]
    policy, reference = (network(model) for model in models)
    prompts = [[5, 9]] * 4000
    found = answers_of(policy, prompts, max_new_tokens=1, batch=1000)
    gaps = kl_to_reference(policy, reference, found, pad_id=0, batch=1000, world=World())
    p = models[0](torch.tensor([[5, 9]])).logits[0, -1].log_softmax(0)
    q = models[1](torch.tensor([[5, 9]])).logits[0, -1].log_softmax(0)
    exact = float((p.exp() * (p - q)).sum())
    assert exact > 0.05
    assert float(gaps.mean()) == pytest.approx(exact, abs=4 * float(gaps.std()) / 4000**0.5)


@torch.no_grad()
def test_the_entropy_of_an_answer_is_that_of_the_distributions_it_was_sampled_from():
    model = causal("llama", sharpness=3.0)
    prompts = [[3, 4, 5, 6, 7], [8], [9, 10, 11], [9, 10, 11]]
    answers = answers_of(network(model), prompts, end_ids=list(range(1, 12)))
    found = response_entropies(network(model), answers, pad_id=0, batch=3, world=World())
    for answer, entropy in zip(answers, found, strict=True):
        p = model(torch.tensor([answer.prompt_ids + answer.ids])).logits[0].softmax(-1)
        places = range(len(answer.prompt_ids) - 1, len(answer.prompt_ids) + len(answer.ids) - 1)
        expected = sum(-float((p[i] * p[i].log()).sum()) for i in places)
        assert float(entropy) == pytest.approx(expected, rel=1e-4)
    assert len({len(answer.ids) for answer in answers}) > 1


def test_answers_are_in_the_order_of_the_prompts():
    model = network(causal("llama", sharpness=4.0))
    prompts = [[3, 4, 5, 6, 7], [8], [9, 10, 11], [12, 13]]
    together = answers_of(model, prompts, temperature=0, batch=3)
    for prompt, answer in zip(prompts, together, strict=True):
        alone = answers_of(model, [prompt], temperature=0)[0]
        assert answer.prompt_ids == prompt
        assert answer.ids == alone.ids


def test_a_sampler_that_differs_from_scoring_is_refused(monkeypatch):
    """With shifted positions the answers would follow another distribution than the model."""
    forward = decoding.forward

    def shifted(model, tokens, mask, positions, cache):
        return forward(model, tokens, mask, positions + 7 * (tokens.shape[1] == 1), cache)

    monkeypatch.setattr(decoding, "forward", shifted)
    model = network(causal("llama", sharpness=4.0))
    with pytest.raises(UserError, match="what is sampled is not what is scored"):
        answers_of(model, [[3, 4, 5], [6]])


def test_answers_depend_on_the_seed_alone():
    model, prompts = network(causal("llama")), [[3, 4]] * 8
    first = answers_of(model, prompts)
    assert first == answers_of(model, prompts)
    assert first != answers_of(model, prompts, seed=1)


def test_several_seeds_give_the_same_answers_as_each_alone():
    """Best-of-n reads a prompt once for n answers, each of which depends on its seed alone."""
    model = network(causal("llama", sharpness=4.0))
    prompts = [[3, 4, 5, 6, 7], [8], [9, 10, 11], [12, 13]]
    together = respond(model, prompts, RENDERER, PARAMS, World(), batch=6, seeds=[4, 9, 2])
    for seed, found in zip([4, 9, 2], together, strict=True):
        assert found == answers_of(model, prompts, seed=seed)
    assert together[0] != together[1]


@torch.no_grad()
def test_scores_do_not_depend_on_the_batch():
    model = scalar("llama", sharpness=3.0)
    rows = [[2 + (i * 7 + j) % (VOCAB - 2) for j in range(1 + i % 5)] for i in range(11)]
    found = reward_scores(network(model), rows, pad_id=0, batch=4, world=World())
    for row, score in zip(rows, found, strict=True):
        alone = sequence_scores(model, torch.tensor([row]), torch.ones(1, len(row)).bool())
        assert float(score) == pytest.approx(float(alone), abs=1e-5)


def test_an_answer_is_finished_when_it_ends_with_eos():
    answers = answers_of(network(causal("llama", sharpness=2.0)), [[3]] * 200, batch=200)
    assert {answer.finished for answer in answers} == {True, False}
    assert all(answer.finished == (answer.ids[-1] == 1) for answer in answers)
    assert isinstance(answers[0], Answer)


@pytest.mark.parametrize("limit", [1, 6])
def test_an_answer_without_eos_has_as_many_tokens_as_the_limit(limit):
    model = network(causal("llama", sharpness=4.0))
    found = answers_of(model, [[5, 9], [3]], max_new_tokens=limit, end_ids=[])
    assert [len(answer.ids) for answer in found] == [limit, limit]
    assert not any(answer.finished for answer in found)


def test_answers_are_sampled_without_dropout():
    """A model in training mode is sampled without dropout and stays in training mode."""
    without_dropout, with_dropout = (causal("llama", sharpness=4.0) for _ in range(2))
    for layer in with_dropout.model.layers:
        layer.self_attn.attention_dropout = 0.9
    trained = network(with_dropout)
    with_dropout.train()
    expected = answers_of(network(without_dropout), [[3, 4]] * 8)
    assert answers_of(trained, [[3, 4]] * 8) == expected
    assert with_dropout.training

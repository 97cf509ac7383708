"""Sampled KL and scores of answers, against sums that can be enumerated."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation.respond import (
    Answer,
    kl_to_reference,
    respond,
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
    """One answer per prompt."""
    params, seeds = replace(PARAMS, **changes), [seed]
    return respond(network, prompts, RENDERER, params, World(), batch=batch, seeds=seeds)[0]


@torch.no_grad()
def test_sampled_kl_is_the_enumerated_kl():
    """One-token responses: KL(policy || reference) summed over the vocabulary, within its error."""
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


def test_answers_come_in_the_order_of_the_prompts():
    model = network(causal("llama", sharpness=4.0))
    prompts = [[3, 4, 5, 6, 7], [8], [9, 10, 11], [12, 13]]
    together = answers_of(model, prompts, temperature=0, batch=3)
    for prompt, answer in zip(prompts, together, strict=True):
        alone = answers_of(model, [prompt], temperature=0)[0]
        assert answer.prompt_ids == prompt
        assert answer.ids == alone.ids


def test_answers_of_a_sampler_that_is_off_are_refused(monkeypatch):
    """Positions shifted: answers would be drawn from another distribution than that of the model."""
    forward = decoding.forward

    def shifted(model, tokens, mask, positions, cache):
        return forward(model, tokens, mask, positions + 7 * (tokens.shape[1] == 1), cache)

    monkeypatch.setattr(decoding, "forward", shifted)
    model = network(causal("llama", sharpness=4.0))
    with pytest.raises(UserError, match="what is sampled is not what is scored"):
        answers_of(model, [[3, 4, 5], [6]])


def test_the_same_seed_gives_the_same_answers_and_another_one_others():
    model, prompts = network(causal("llama")), [[3, 4]] * 8
    first = answers_of(model, prompts)
    assert first == answers_of(model, prompts)
    assert first != answers_of(model, prompts, seed=1)


def test_several_seeds_at_once_give_the_answers_of_each_alone():
    """Best-of-n reads a prompt once for n answers; what is drawn stays a function of the seed."""
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


def test_an_answer_knows_whether_it_ended():
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


def test_answers_are_given_without_dropout():
    """Asked in the middle of training: judged without, and trained on with it."""
    quiet, loud = (causal("llama", sharpness=4.0) for _ in range(2))
    for layer in loud.model.layers:
        layer.self_attn.attention_dropout = 0.9
    asked = network(loud)
    loud.train()
    expected = answers_of(network(quiet), [[3, 4]] * 8)
    assert answers_of(asked, [[3, 4]] * 8) == expected
    assert loud.training

"""Samples follow the scored distribution: nothing but temperature changes it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.forward import ModelInputs, response_logprobs
from rlhf_cli.models.generation.sampling import (
    SamplingParams,
    sample,
    sample_and_score,
    sample_token,
)
from tests.support.tiny_models import CONFIGS, VOCAB, causal, ragged

PARAMS = SamplingParams(max_new_tokens=9, temperature=0, end_ids=[1], pad_id=0)
MANY_ENDS = list(range(1, 12))
UNIFORMS = uniforms(64, 9, 0)  # one per row and column


def scored(*inputs, **settings):
    return sample_and_score(*inputs, **settings)[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_decoding_equals_that_of_transformers(name):
    model = causal(name, sharpness=4.0)
    prompts, mask = ragged(8, 6, side="left")
    ours = sample(model, prompts, mask, UNIFORMS[: len(prompts)], PARAMS)
    expected = model.generate(
        input_ids=prompts,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=9,
        eos_token_id=1,
        pad_token_id=0,
    )[:, prompts.shape[1] :]
    width = ours.responses.shape[1]
    assert torch.equal(ours.responses.masked_fill(~ours.mask, 0), expected[:, :width])


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_that_finish_early_do_not_change_the_others(name):
    """With many end tokens rows finish one by one; each row alone gives the same text."""
    model = causal(name, sharpness=4.0)
    prompts, mask = ragged(16, 6, side="left", seed=3)
    params = replace(PARAMS, end_ids=MANY_ENDS)
    together = sample(model, prompts, mask, UNIFORMS[: len(prompts)], params)
    assert len(set(together.mask.sum(1).tolist())) > 1
    for row in range(len(prompts)):
        kept = mask[row]
        alone = sample(
            model,
            prompts[row : row + 1, kept],
            mask[row : row + 1, kept],
            UNIFORMS[:1],
            params,
        )
        assert (
            together.responses[row][together.mask[row]].tolist()
            == alone.responses[0][alone.mask[0]].tolist()
        )
        assert bool(together.finished[row]) == bool(alone.finished[0])


@torch.no_grad()
def test_the_samples_of_a_row_do_not_depend_on_the_other_rows():
    """Sampling is divided among processes by rows, which must not change a response."""
    model = causal("llama", sharpness=4.0)
    prompts, mask = ragged(16, 6, side="left", seed=3)
    params = replace(PARAMS, temperature=1.0, end_ids=MANY_ENDS)
    whole = sample(model, prompts, mask, UNIFORMS[:16], params)
    for rank in range(2):
        part = sample(model, prompts[rank::2], mask[rank::2], UNIFORMS[rank:16:2], params)
        width = part.responses.shape[1]
        assert torch.equal(part.responses, whole.responses[rank::2, :width])
        assert torch.equal(part.mask, whole.mask[rank::2, :width])


@torch.no_grad()
def test_a_finished_process_keeps_stepping_until_keep_going_is_false():
    """keep_going is called once per token, and tokens generated after the end are discarded."""
    model, calls = causal("llama"), []
    prompts, mask = ragged(4, 6, side="left")

    def keep_going(running):
        calls.append(running)
        return True

    params = replace(PARAMS, temperature=1.0, end_ids=list(range(VOCAB)))
    found = sample(model, prompts, mask, UNIFORMS[:4], params, keep_going=keep_going)
    assert calls == [False] * 8  # no call after the ninth token, the last
    assert found.mask.shape == (4, 1)
    assert found.finished.all()


def test_a_response_ends_with_its_first_end_token():
    model = causal("llama")
    prompts, mask = ragged(64, 4, side="left")
    ends = list(range(1, 10))
    found = sample(model, prompts, mask, UNIFORMS, replace(PARAMS, temperature=1.0, end_ids=ends))
    for row in range(64):
        text = found.responses[row][found.mask[row]]
        is_end = torch.isin(text, torch.tensor(ends))
        assert bool(is_end[-1]) == bool(found.finished[row])
        assert not is_end[:-1].any()
        assert found.finished[row] or len(text) == 9


@pytest.mark.parametrize("draw", [sample_token, scored])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_draws_follow_the_tempered_softmax(temperature, draw):
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(1)) * 2
    drawn = draw(
        logits.expand(60000, 12),
        uniforms(60000, 1, 2)[:, 0],
        temperature=temperature,
    )
    seen = torch.bincount(drawn, minlength=12) / 60000
    expected = (logits[0] / temperature).softmax(0)
    error = ((expected * (1 - expected)) / 60000).sqrt()
    assert ((seen - expected).abs() < 4.5 * error + 1e-6).all()


@pytest.mark.parametrize("draw", [sample_token, scored])
def test_a_token_without_probability_is_never_drawn(draw):
    logits = torch.full((5000, 6), float("-inf"))
    logits[:, 2] = 0.0
    logits[:, 4] = 1.0
    drawn = draw(logits, uniforms(5000, 1, 0)[:, 0], temperature=1.0)
    assert set(drawn.tolist()) == {2, 4}


@torch.no_grad()
def test_mean_logprob_of_samples_is_minus_the_entropy():
    """E_pi[log pi] = -H holds only if sampling and scoring use the same distribution."""
    model = causal("llama", sharpness=6.0)
    prompts, mask = ragged(1, 4, side="left")
    prompts, mask = prompts.repeat(6000, 1), mask.repeat(6000, 1)
    params = replace(PARAMS, max_new_tokens=1, temperature=0.7)
    found = sample(model, prompts, mask, uniforms(6000, 1, 5), params)
    part = SimpleNamespace(
        prompts=prompts, prompt_mask=mask, responses=found.responses, response_mask=found.mask
    )
    logprobs, entropies = response_logprobs(model, ModelInputs(part), temperature=0.7)
    error = logprobs.std() / 6000**0.5
    assert abs(logprobs.mean() + entropies.mean()) < 4 * error
    assert entropies.mean() < 0.98 * torch.log(torch.tensor(float(VOCAB)))

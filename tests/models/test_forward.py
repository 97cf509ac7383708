"""Log-probs, values and scores do not depend on padding, and follow the chain rule."""

from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.models.forward import (
    ModelInputs,
    response_logprobs,
    response_values,
    sequence_scores,
    token_scores,
)
from tests.support.tiny_models import CONFIGS, causal, ragged, scalar


def batch(seed=0):
    prompts, prompt_mask = ragged(5, 6, side="left", seed=seed)
    responses, response_mask = ragged(5, 7, side="right", seed=seed + 1)
    return SimpleNamespace(
        prompts=prompts,
        prompt_mask=prompt_mask,
        responses=responses,
        response_mask=response_mask,
    )


def padded(part, *, left: int, right: int, pad: int):
    """Return the same rows with more padding on the outside, filled with another pad id."""
    grow = torch.nn.functional.pad
    prompts = part.prompts.masked_fill(~part.prompt_mask, pad)
    responses = part.responses.masked_fill(~part.response_mask, pad)
    return SimpleNamespace(
        prompts=grow(prompts, (left, 0), value=pad),
        prompt_mask=grow(part.prompt_mask, (left, 0), value=False),
        responses=grow(responses, (0, right), value=pad),
        response_mask=grow(part.response_mask, (0, right), value=False),
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_logprobs_equal_the_chain_rule(name, temperature):
    """Reference: every row alone and unpadded, one forward pass per token."""
    model, part = causal(name, sharpness=3.0), batch()
    found, _ = response_logprobs(model, ModelInputs(part), temperature=temperature)
    for row in range(len(part.prompts)):
        text = part.prompts[row][part.prompt_mask[row]].tolist()
        for column, token in enumerate(part.responses[row][part.response_mask[row]].tolist()):
            logits = model(torch.tensor([text])).logits[0, -1] / temperature
            assert found[row, column] == pytest.approx(
                float(logits.log_softmax(0)[token]), abs=2e-5
            )
            text.append(token)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_padding_and_pad_id_do_not_change_logprobs_and_values(name):
    model, head, part = causal(name, sharpness=3.0), scalar(name, sharpness=3.0), batch()
    wider = padded(part, left=3, right=4, pad=7)
    mask, width = part.response_mask, part.responses.shape[1]
    for score in (
        lambda p: response_logprobs(model, ModelInputs(p), temperature=1.0)[0],
        lambda p: response_values(head, ModelInputs(p)),
    ):
        a, b = score(part), score(wider)[:, :width]
        assert torch.allclose(a[mask], b[mask], atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_score_is_read_at_the_last_real_token(name):
    """Left, right or no padding, with or without an end token: the same score."""
    model = scalar(name, sharpness=3.0)
    for text in ([5, 9, 3, 1], [5, 9, 3, 8], [5]):
        alone = sequence_scores(model, torch.tensor([text]), torch.ones(1, len(text)).bool())
        tokens = torch.tensor([[*text, 0, 0], [0, 0, *text]])
        mask = tokens != 0
        both = sequence_scores(model, tokens, mask)
        assert torch.allclose(both, alone.expand(2), atol=1e-5)
        whole = token_scores(model, torch.tensor([text]), torch.ones(1, len(text)).bool())
        assert float(alone) == pytest.approx(float(whole[0, -1]), abs=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_values_depend_only_on_earlier_tokens(name):
    """The value of response column t does not depend on token t or any later one."""
    model, part = scalar(name, sharpness=3.0), batch()
    before = response_values(model, ModelInputs(part))
    changed = part.responses.clone()
    changed[:, 3:] = (changed[:, 3:] + 11) % 38 + 2
    part.responses = torch.where(part.response_mask, changed, part.responses)
    after = response_values(model, ModelInputs(part))
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_two_forward_passes_in_training_mode_are_equal(name):
    """Dropout is off everywhere: otherwise the first ratio is not 1."""
    model, part = causal(name).train(), batch()
    a, _ = response_logprobs(model, ModelInputs(part), temperature=1.0)
    b, _ = response_logprobs(model, ModelInputs(part), temperature=1.0)
    assert torch.equal(a, b)


@torch.no_grad()
def test_scores_are_float32_under_bfloat16_autocast():
    """The head must not round: scores of near-equal texts would be tied on a grid of 1/128."""
    model, part = scalar("llama", sharpness=3.0), batch()
    with torch.no_grad():
        model.score.weight.mul_(100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sequence_scores(model, part.responses, part.response_mask)
    assert found.dtype is torch.float32
    assert not torch.equal(found, found.bfloat16().float())
    exact = sequence_scores(model, part.responses, part.response_mask)
    assert torch.allclose(found, exact, rtol=0.1, atol=0.1 * float(exact.std()))

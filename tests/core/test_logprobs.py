"""Log-probabilities, compared with a softmax in Python, autograd and enumeration."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import log_softmax

from rlhf_cli.core import logprobs as module
from rlhf_cli.core.logprobs import entropy, head_logprobs, token_logprobs
from rlhf_cli.core.losses import policy_loss
from rlhf_cli.core.masking import masked_mean


def make(b=2, r=3, v=5, seed=0, dtype=torch.double):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(b, r, v, generator=generator, dtype=torch.double)
    return logits.to(dtype), torch.randint(0, v, (b, r), generator=generator)


def softmax(row, temperature):
    weights = [math.exp(x / temperature) for x in row]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_logprobs_and_entropy_equal_a_softmax_in_python(temperature):
    logits, tokens = make()
    got = token_logprobs(logits, tokens, temperature=temperature)
    uncertain = entropy(logits, temperature=temperature)
    for b, r in itertools.product(range(2), range(3)):
        p = softmax(logits[b, r].tolist(), temperature)
        assert got[b, r].item() == pytest.approx(math.log(p[tokens[b, r]]))
        assert uncertain[b, r].item() == pytest.approx(-sum(q * math.log(q) for q in p))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_probabilities_of_all_tokens_sum_to_one(temperature):
    logits, _ = make(1, 1, 7)
    every = torch.arange(7).view(7, 1)
    lp = token_logprobs(logits.expand(7, 1, 7), every, temperature=temperature)
    assert lp.exp().sum().item() == pytest.approx(1)
    expected_surprise = -(lp.exp() * lp).sum().item()
    assert entropy(logits, temperature=temperature).item() == pytest.approx(expected_surprise)


def test_logprobs_and_entropy_do_not_change_with_a_constant_added_to_the_logits():
    logits, tokens = make()
    for function in (
        lambda x: token_logprobs(x, tokens, temperature=0.7),
        lambda x: entropy(x, temperature=0.7),
    ):
        torch.testing.assert_close(function(logits + 50), function(logits))


def test_gradient_equals_finite_differences():
    logits, tokens = make()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, tokens, temperature=0.7), logits)
    assert torch.autograd.gradcheck(lambda x: entropy(x, temperature=0.7), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_equals_that_of_log_softmax(dtype):
    logits, tokens = make(2, 3, 11, dtype=dtype)
    ours, reference = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    slope = torch.linspace(-1, 1, 6).view(2, 3)
    (token_logprobs(ours, tokens, temperature=0.7) * slope).sum().backward()
    full = log_softmax(reference.float() / 0.7, -1)
    (full.gather(-1, tokens[..., None]).squeeze(-1) * slope).sum().backward()
    assert ours.grad.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(ours.grad, reference.grad, atol=tolerance, rtol=tolerance)


def test_low_precision_logits_are_scored_in_float32():
    logits, tokens = make(4, 5, 50, dtype=torch.bfloat16)
    got = token_logprobs(logits, tokens, temperature=1.0)
    exact = token_logprobs(logits.double(), tokens, temperature=1.0)
    assert got.dtype == torch.float32 and exact.dtype == torch.double
    torch.testing.assert_close(got.double(), exact, atol=1e-5, rtol=1e-5)
    assert entropy(logits, temperature=1.0).dtype == torch.float32


def test_only_the_logits_are_kept_at_the_width_of_the_vocabulary():
    logits, tokens = make(2, 3, 1000, dtype=torch.bfloat16)
    logits.requires_grad_()
    wide = []

    def pack(x):
        if x.numel() >= logits.numel():
            wide.append((x.dtype, x.data_ptr()))
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        token_logprobs(logits, tokens, temperature=0.7)
    assert set(wide) == {(torch.bfloat16, logits.data_ptr())}


def test_results_do_not_depend_on_the_rows_per_chunk(monkeypatch):
    logits, tokens = make(3, 5, 7)

    def run():
        x = logits.clone().requires_grad_()
        lp, h = token_logprobs(x, tokens, temperature=0.7), entropy(x, temperature=0.7)
        (lp * h).sum().backward()
        return lp.detach(), h.detach(), x.grad

    whole = run()
    monkeypatch.setattr(module, "ROW_BUDGET", 28)  # four rows at a time, the last chunk short
    torch.testing.assert_close(run(), whole)


def test_extreme_and_infinite_logits_give_finite_results():
    logits = torch.tensor([[[1e4, -1e4, -math.inf]]], requires_grad=True)
    assert token_logprobs(logits, torch.tensor([[0]]), temperature=1.0).item() == 0
    far = token_logprobs(logits, torch.tensor([[1]]), temperature=1.0)
    assert far.item() == -2e4
    far.sum().backward()
    assert logits.grad.tolist() == [[[-1, 1, 0]]]
    assert entropy(logits.detach(), temperature=1.0).item() == 0


def test_entropy_is_between_zero_and_log_v():
    assert entropy(torch.zeros(1, 1, 8), temperature=1.0).item() == pytest.approx(math.log(8))
    logits, _ = make(4, 4, 8)
    cold, warm, hot = (entropy(logits, temperature=t) for t in (0.1, 1.0, 100.0))
    assert ((cold >= 0) & (cold < warm) & (warm < hot) & (hot < math.log(8))).all()


def test_pad_columns_do_not_change_the_mean_entropy():
    """A sentinel log-prob of 1.0 at pads would change the mean."""
    logits, _ = make(2, 3, 5)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    clean = masked_mean(entropy(logits, temperature=1.0), mask)
    for garbage in (0.0, 1.0, 1e4, math.nan):
        wide = torch.cat([logits, torch.full((2, 2, 5), garbage, dtype=torch.double)], dim=1)
        wide_mask = torch.nn.functional.pad(mask, (0, 2))
        found = masked_mean(entropy(wide, temperature=1.0), wide_mask)
        torch.testing.assert_close(found, clean, atol=0, rtol=1e-14)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_chain_rule_over_every_sequence_sums_to_one(temperature):
    """p(y) = prod_t p(y_t | y_<t): with V = 3 and 3 steps the 27 sequences have mass 1."""
    generator = torch.Generator().manual_seed(4)
    table = torch.randn(3, 4, 3, generator=generator, dtype=torch.double)  # step, last token, next
    sequences = torch.tensor(list(itertools.product(range(3), repeat=3)))
    before = torch.cat([torch.full((27, 1), 3), sequences[:, :-1]], dim=1)
    logits = table[torch.arange(3), before]
    lp = token_logprobs(logits, sequences, temperature=temperature).sum(1)
    assert lp.exp().sum().item() == pytest.approx(1)


def first_ratio(score_temperature):
    logits, tokens = make(3, 4, 6)
    sampled = token_logprobs(logits, tokens, temperature=0.7)
    now = token_logprobs(logits, tokens, temperature=score_temperature)
    mask = torch.ones(3, 4, dtype=torch.bool)
    return policy_loss(now, sampled, torch.ones(3, 4), mask, clip_eps=0.2, num_tokens=12)


def test_the_first_ratio_is_one_only_if_sampling_and_scoring_agree():
    same, other = first_ratio(0.7), first_ratio(1.0)
    assert same.ratio.item() == 1 and same.clip_frac.item() == 0 and same.approx_kl.item() == 0
    assert abs(other.ratio.item() - 1) > 0.05 and other.clip_frac.item() > 0


@pytest.mark.parametrize("budget", [1 << 24, 28])
@pytest.mark.parametrize("with_bias", [False, True])
def test_head_logprobs_in_chunks_equal_those_of_the_complete_logits(budget, with_bias, monkeypatch):
    monkeypatch.setattr(module, "ROW_BUDGET", budget)
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias, slope = (
        torch.randn(size, generator=generator, dtype=torch.double).requires_grad_()
        for size in ((9, 4), (7, 4), (7,), (9,))
    )
    tokens = torch.randint(0, 7, (9,), generator=generator)
    bias = bias if with_bias else None
    whole = torch.nn.functional.linear(hidden, weight, bias)
    wanted = token_logprobs(whole[None], tokens[None], temperature=0.7)[0]
    found, uncertain = head_logprobs(hidden, weight, bias, tokens, temperature=0.7)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(uncertain, entropy(whole.detach(), temperature=0.7))
    assert not uncertain.requires_grad
    inputs = [x for x in (hidden, weight, bias) if x is not None]
    torch.testing.assert_close(
        torch.autograd.grad((found * slope).sum(), inputs),
        torch.autograd.grad((wanted * slope).sum(), inputs),
    )
    assert torch.autograd.gradcheck(
        lambda *given: head_logprobs(
            given[0], given[1], given[2] if with_bias else None, tokens, temperature=0.7
        )[0],
        inputs,
    )


def test_head_logprobs_of_no_tokens_give_a_zero_gradient():
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    found, uncertain = head_logprobs(hidden, weight, None, none, temperature=1.0)
    assert found.shape == uncertain.shape == (0,)
    found.sum().backward()
    assert float(weight.grad.abs().sum()) == 0


def test_head_logprobs_under_bfloat16_autocast_use_float32_softmaxes():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=generator) for n in (6, 50))
    weight.requires_grad_()
    tokens = torch.randint(0, 50, (6,), generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = head_logprobs(hidden, weight, None, tokens, temperature=1.0)
        logits = torch.nn.functional.linear(hidden, weight)
    wanted = token_logprobs(logits[None], tokens[None], temperature=1.0)[0]
    assert found.dtype == torch.float32 and logits.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    exact = weight.detach().requires_grad_()
    token_logprobs((hidden @ exact.T)[None], tokens[None], temperature=1.0).sum().backward()
    torch.testing.assert_close(weight.grad, exact.grad, atol=0.05, rtol=0.05)


def test_head_logprobs_of_extreme_logits_are_finite():
    weight = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    found, uncertain = head_logprobs(
        torch.ones(2, 1), weight, None, torch.tensor([0, 1]), temperature=1.0
    )
    assert found.tolist() == [0, -2e4] and uncertain.tolist() == [0, 0]
    found.sum().backward()
    assert weight.grad.tolist() == [[-1], [1], [0]]

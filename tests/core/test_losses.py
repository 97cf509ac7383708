"""Losses, compared with loops over tokens, properties of clipping, and sums over micro-batches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from rlhf_cli.core.logprobs import token_logprobs
from rlhf_cli.core.losses import (
    importance_ratios,
    kl_loss,
    lm_loss,
    policy_loss,
    token_weights,
    value_loss,
)
from tests.support.response_masks import response_mask

LENGTHS = [2, 8, 5, 1]
MASK = torch.arange(8) < torch.tensor(LENGTHS)[:, None]
TOKENS = sum(LENGTHS)
NAMES = ("logprobs", "old", "advantages", "values", "old_values", "returns")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def example():
    """Return ratios and values on both sides of both clips."""
    data = {name: noise(4, 8, seed=i) for i, name in enumerate(NAMES)}
    data["old"] = data["logprobs"] + 0.3 * data["old"]
    data["old_values"] = data["values"] + 0.3 * data["old_values"]
    return data


def all_losses(data, mask, num_tokens):
    """Return every loss and every metric as one vector."""
    pg = policy_loss(
        data["logprobs"],
        data["old"],
        data["advantages"],
        mask,
        clip_eps=0.2,
        num_tokens=num_tokens,
    )
    vf = value_loss(
        data["values"],
        data["old_values"],
        data["returns"],
        mask,
        clip_eps=0.2,
        num_tokens=num_tokens,
    )
    lm = lm_loss(data["logprobs"], mask, num_tokens=num_tokens)
    return torch.stack([pg.loss, pg.clip_frac, pg.approx_kl, pg.ratio, vf.loss, vf.clip_frac, lm])


def with_gradients(data, parts, mask=MASK, num_tokens=TOKENS):
    """Return losses and gradients summed over row groups, as gradient accumulation does."""
    leaves = {k: x.clone().requires_grad_(k in ("logprobs", "values")) for k, x in data.items()}
    total = 0
    for rows in parts:
        out = all_losses({k: x[rows] for k, x in leaves.items()}, mask[rows], num_tokens)
        (out[0] + 0.1 * out[4] + out[6]).backward()
        total = total + out.detach()
    return total, leaves["logprobs"].grad, leaves["values"].grad


def loop_over_tokens(data):
    """Return the same seven numbers, computed token by token in Python."""
    sums = [0.0] * 7
    for b, n in enumerate(LENGTHS):
        for t in range(n):
            lp, old, adv, v, v_old, ret = (data[k][b, t].item() for k in NAMES)
            ratio = math.exp(lp - old)
            held = min(max(ratio, 0.8), 1.2)
            near = min(max(v, v_old - 0.2), v_old + 0.2)
            gains = (adv * ratio, adv * held)
            errors = ((v - ret) ** 2, (near - ret) ** 2)
            numbers = (
                -min(gains),
                gains[1] < gains[0],
                0.5 * (lp - old) ** 2,
                ratio,
                0.5 * max(errors),
                errors[1] > errors[0],
                -lp,
            )
            sums = [total + x for total, x in zip(sums, numbers, strict=True)]
    return [x / TOKENS for x in sums]


def test_losses_and_metrics_equal_a_loop_over_the_tokens():
    got = all_losses(example(), MASK, TOKENS)
    assert got.tolist() == pytest.approx(loop_over_tokens(example()), abs=1e-6)
    assert 0 < got[1] < 1 and 0 < got[5] < 1  # the example does reach both clips


@pytest.mark.parametrize("garbage", [1.0, -1e30, math.inf, math.nan])
def test_pads_do_not_change_losses_metrics_and_gradients(garbage):
    """The values at pads and the number of pads do not matter."""
    clean = with_gradients(example(), [slice(None)])
    for extra in (0, 4):
        mask = pad(MASK, (0, extra))
        data = {k: torch.where(mask, pad(x, (0, extra)), garbage) for k, x in example().items()}
        losses, *gradients = with_gradients(data, [slice(None)], mask)
        assert torch.equal(losses, clean[0])
        for gradient, want in zip(gradients, clean[1:], strict=True):
            assert torch.equal(gradient[:, :8], want) and not gradient[~mask].any()


def test_a_nan_advantage_at_a_pad_gives_a_zero_gradient():
    x = torch.full((1, 2), -0.5, requires_grad=True)
    advantages, mask = torch.tensor([[1.0, math.nan]]), torch.tensor([[True, False]])
    policy_loss(x, x.detach(), advantages, mask, clip_eps=0.2, num_tokens=1).loss.backward()
    assert x.grad.tolist() == [[-1, 0]]


@pytest.mark.parametrize(
    "parts",
    [
        [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)],
        [slice(0, 2), slice(2, 4)],
        [slice(0, 3), slice(3, 4)],
        [torch.tensor([3, 1]), torch.tensor([0, 2])],
    ],
)
def test_microbatches_add_up_to_the_whole_batch(parts):
    torch.testing.assert_close(
        with_gradients(example(), parts), with_gradients(example(), [slice(None)])
    )


def test_the_mean_over_tokens_differs_from_a_mean_of_microbatch_means():
    """Lengths 2 and 8 with losses 1 and 3: 2.6 over the tokens, 2.0 by averaging averages."""
    logprobs = torch.tensor([[-1.0] * 8, [-3.0] * 8])
    mask = torch.arange(8) < torch.tensor([[2], [8]])
    rows = [lm_loss(logprobs[i : i + 1], mask[i : i + 1], num_tokens=10) for i in (0, 1)]
    assert sum(rows).item() == pytest.approx(2.6)
    assert lm_loss(logprobs, mask, num_tokens=mask.sum()).item() == pytest.approx(2.6)
    averaged = [
        lm_loss(logprobs[i : i + 1], mask[i : i + 1], num_tokens=n) for i, n in ((0, 2), (1, 8))
    ]
    assert sum(averaged).item() / 2 == pytest.approx(2.0)


def test_every_token_has_the_same_weight_whatever_the_response_length():
    logprobs = torch.zeros(4, 8, requires_grad=True)
    lm_loss(logprobs, MASK, num_tokens=TOKENS).backward()
    assert torch.equal(logprobs.grad, -MASK.float() / TOKENS)


def one_token(log_ratio, advantage, eps=0.2):
    x = torch.tensor([[log_ratio]], dtype=torch.double, requires_grad=True)
    zero, one = torch.zeros(1, 1, dtype=torch.double), torch.ones(1, 1, dtype=torch.bool)
    out = policy_loss(x, zero, zero + advantage, one, clip_eps=eps, num_tokens=1)
    out.loss.backward()
    return out, x.grad.item()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.floats(0.3, 2.5), st.floats(-3, 3).filter(lambda a: abs(a) > 1e-3))
def test_gradient_vanishes_exactly_on_the_clipped_side(ratio, advantage):
    if min(abs(ratio - 0.8), abs(ratio - 1.2)) < 1e-6:
        return
    out, slope = one_token(math.log(ratio), advantage)
    clipped = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
    assert out.clip_frac.item() == clipped
    assert slope == pytest.approx(0 if clipped else -advantage * ratio)
    assert (
        out.loss.item() >= -advantage * ratio - 1e-12
    )  # pessimistic: never below the unclipped loss


def test_the_gradient_at_ratio_one_is_the_plain_policy_gradient():
    advantages = noise(4, 8, seed=2)
    x = noise(4, 8).requires_grad_()
    out = policy_loss(x, x.detach(), advantages, MASK, clip_eps=0.2, num_tokens=TOKENS)
    out.loss.backward()
    assert (out.ratio.item(), out.clip_frac.item(), out.approx_kl.item()) == (1, 0, 0)
    torch.testing.assert_close(x.grad, -advantages * MASK / TOKENS)


def test_a_gradient_step_raises_good_tokens_and_lowers_bad_ones():
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    lp = token_logprobs(logits, torch.tensor([[0, 1]]), temperature=1.0)
    mask = torch.ones(1, 2, dtype=torch.bool)
    advantages = torch.tensor([[1.0, -1.0]])
    policy_loss(lp, lp.detach(), advantages, mask, clip_eps=0.2, num_tokens=2).loss.backward()
    after = token_logprobs(logits.detach() - logits.grad, torch.tensor([[0, 1]]), temperature=1.0)
    assert after[0, 0] > lp[0, 0] and after[0, 1] < lp[0, 1]


def test_approx_kl_equals_the_kl_of_a_small_step_to_second_order():
    """Half the mean squared log-ratio over the sampler's own draws, exact sum over 4 outcomes."""
    p = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.double)
    q = (p.log() + 0.01 * noise(4)).softmax(0)
    copies = (p * 10).round().long()  # ten draws in exactly these shares
    old, now = p.log().repeat_interleave(copies), q.log().repeat_interleave(copies)
    one = torch.ones(1, 10, dtype=torch.bool)
    out = policy_loss(now[None], old[None], 0 * old[None], one, clip_eps=0.2, num_tokens=10)
    assert out.approx_kl.item() == pytest.approx((p * (p / q).log()).sum().item(), rel=0.02)
    assert out.ratio.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("log_ratio", [-2000.0, 100.0, 2000.0])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_extreme_ratios_give_finite_losses_and_gradients(log_ratio, advantage):
    out, slope = one_token(log_ratio, advantage)
    assert out.loss.isfinite() and math.isfinite(slope)


def test_metrics_carry_no_gradient():
    x = noise(4, 8).requires_grad_()
    pg = policy_loss(x, noise(4, 8, seed=1), x.detach(), MASK, clip_eps=0.2, num_tokens=TOKENS)
    vf = value_loss(x, x.detach(), noise(4, 8), MASK, clip_eps=0.2, num_tokens=TOKENS)
    statistics = (pg.clip_frac, pg.approx_kl, pg.ratio, vf.clip_frac)
    assert not any(s.requires_grad for s in statistics)


def one_value(value, target, old=0.0, eps=0.2):
    x = torch.tensor([[value]], dtype=torch.double, requires_grad=True)
    full = torch.zeros(1, 1, dtype=torch.double)
    one = torch.ones(1, 1, dtype=torch.bool)
    out = value_loss(x, full + old, full + target, one, clip_eps=eps, num_tokens=1)
    out.loss.backward()
    return out, x.grad.item()


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope", "clipped"),
    [
        (0.1, 1.0, 0.405, -0.9, 0),  # inside the clip: plain squared error
        (0.5, 1.0, 0.320, 0.0, 1),  # moved past the clip towards the target: held at 0.2
        (-0.5, 1.0, 1.125, -1.5, 0),  # moved past the clip away from it: the error pulls back
        (0.5, -1.0, 1.125, 1.5, 0),
    ],
)
def test_the_clipped_value_loss_equals_values_computed_by_hand(value, target, loss, slope, clipped):
    out, got = one_value(value, target)
    assert out.loss.item() == pytest.approx(loss)
    assert got == pytest.approx(slope)
    assert out.clip_frac.item() == clipped


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_value_loss_is_never_below_half_the_squared_error_and_equals_it_unclipped(v, target, old):
    plain, slope = one_value(v, target, old, eps=None)
    assert plain.loss.item() == pytest.approx((v - target) ** 2 / 2)
    assert slope == pytest.approx(v - target)
    assert plain.clip_frac.item() == 0
    assert one_value(v, target, old, eps=100.0)[0].loss.item() == plain.loss.item()
    assert one_value(v, target, old)[0].loss.item() >= plain.loss.item()


def test_the_mean_of_the_returns_minimises_the_value_loss():
    returns = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.double)
    one = torch.ones(1, 3, dtype=torch.bool)
    v = torch.tensor(0.0, dtype=torch.double, requires_grad=True)
    for _ in range(60):
        values = v.expand(1, 3)
        value_loss(
            values, values.detach(), returns, one, clip_eps=0.2, num_tokens=3
        ).loss.backward()
        with torch.no_grad():
            v -= 0.5 * v.grad
            v.grad = None
    assert v.item() == pytest.approx(3)


def test_eos_is_learned_even_when_it_is_the_pad_token():
    """With PAD == EOS, training makes EOS likely after the answer and only there."""
    tokens = torch.tensor([[3, 4, 2, 2, 2]])
    mask = response_mask(tokens, torch.tensor([2]))
    logits = torch.zeros(1, 5, 6, requires_grad=True)
    for _ in range(50):
        lp = token_logprobs(logits, tokens, temperature=1.0)
        lm_loss(lp, mask, num_tokens=mask.sum()).backward()
        with torch.no_grad():
            logits -= 2.0 * logits.grad
            logits.grad = None
    ends = logits.softmax(-1)[0, :, 2].tolist()
    assert ends[2] > 0.9 and max(ends[:2]) < 1 / 6
    assert ends[3:] == pytest.approx([1 / 6, 1 / 6])  # pads gave no gradient


def test_prompt_tokens_outside_the_mask_get_no_gradient():
    logits = torch.zeros(1, 4, 5, requires_grad=True)
    mask = torch.tensor([[False, False, True, True]])
    lm_loss(
        token_logprobs(logits, torch.tensor([[1, 2, 3, 4]]), temperature=1.0), mask, num_tokens=2
    ).backward()
    assert not logits.grad[0, :2].any() and logits.grad[0, 2:].any(dim=-1).all()


def test_the_loss_of_uniform_predictions_is_log_v():
    lp = token_logprobs(torch.zeros(4, 8, 7), torch.zeros(4, 8).long(), temperature=1.0)
    assert lm_loss(lp, MASK, num_tokens=TOKENS).item() == pytest.approx(math.log(7))


THETA = [0.3, -0.2, 0.5]
REF = torch.tensor([0.2, 0.5, 0.3], dtype=torch.double)
REVERSE = [0.138796, -0.219580, 0.080784]  # gradient of KL(policy || ref) in THETA
FORWARD = [0.153615, -0.285522, 0.131906]  # gradient of KL(ref || policy)


@pytest.mark.parametrize(
    ("estimator", "weighted", "gradient"),
    [
        ("k1", True, REVERSE),
        ("k3", True, REVERSE),
        ("k2", False, REVERSE),
        ("k3", False, FORWARD),
        ("k1", False, [0.0, 0.0, 0.0]),
    ],
)
def test_the_gradient_of_a_kl_loss_is_that_of_the_divergence_it_names(
    estimator, weighted, gradient
):
    """Every response once, with its probability as weight: the expectation over samples, exactly."""
    theta = torch.tensor(THETA, dtype=torch.double, requires_grad=True)
    logprobs = theta.log_softmax(0)[:, None]
    mask, old = torch.ones(3, 1, dtype=torch.bool), logprobs.detach()
    ratio = importance_ratios(logprobs, old, mask)[1] if weighted else None
    kl_loss(
        logprobs, REF.log()[:, None], mask, estimator=estimator, weights=old.exp(), ratio=ratio
    ).backward()
    assert theta.grad.tolist() == pytest.approx(gradient, abs=1e-6)


def test_a_kl_loss_is_finite_far_from_the_reference_and_ignores_pads():
    logprobs = torch.tensor([[-1.0, -90.0, math.nan]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    found = kl_loss(logprobs, torch.zeros(1, 3), mask, estimator="k3", weights=mask.float())
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(logprobs.grad).all()


def weighted_loss(average, *, rows=slice(None), by_sequence=False, old=None):
    """Return the loss of example() under an average of the whole step, and the log-probs' gradient."""
    data = example()
    leaf = data["logprobs"].clone().requires_grad_()
    weights = token_weights(MASK[rows], average=average, num_responses=4, num_tokens=TOKENS)
    found = policy_loss(
        leaf[rows],
        (data["old"] if old is None else old)[rows],
        data["advantages"][:, :1].expand(4, 8)[rows],
        MASK[rows],
        clip_eps=0.2,
        num_tokens=TOKENS,
        by_sequence=by_sequence,
        weights=weights,
    )
    found.loss.backward()
    return found.loss.detach(), leaf.grad


@pytest.mark.parametrize("average", ["sum", "mean", "token"])
def test_every_average_weighs_the_tokens_by_its_definition(average):
    data, total = example(), 0.0
    for b, n in enumerate(LENGTHS):
        own = 0.0
        for t in range(n):
            advantage = data["advantages"][b, 0].item()
            ratio = math.exp(data["logprobs"][b, t].item() - data["old"][b, t].item())
            own -= min(advantage * ratio, advantage * min(max(ratio, 0.8), 1.2))
        total += {"sum": own / 4, "mean": own / n / 4, "token": own / TOKENS}[average]
    whole, gradient = weighted_loss(average)
    assert whole == pytest.approx(total)
    parts = [weighted_loss(average, rows=rows) for rows in (slice(0, 1), slice(1, 4))]
    assert torch.allclose(sum(loss for loss, _ in parts), whole)
    assert torch.allclose(sum(grad for _, grad in parts), gradient)


def test_the_average_over_tokens_is_the_loss_without_weights():
    data = example()
    args = data["logprobs"], data["old"], data["advantages"], MASK
    weights = token_weights(MASK, average="token", num_responses=4, num_tokens=TOKENS)
    plain = policy_loss(*args, clip_eps=0.2, num_tokens=TOKENS)
    weighted = policy_loss(*args, clip_eps=0.2, num_tokens=TOKENS, weights=weights)
    assert weighted.loss == pytest.approx(plain.loss)


def test_ratios_of_tokens_and_of_sequences_agree_at_the_start():
    start = example()["logprobs"]
    _, by_token = weighted_loss("mean", old=start)
    _, by_sequence = weighted_loss("mean", old=start, by_sequence=True)
    assert torch.allclose(by_token, by_sequence)


def test_the_ratio_of_a_sequence_is_the_exponential_of_its_mean_log_ratio():
    data = example()
    _, ratio = importance_ratios(data["logprobs"], data["old"], MASK, by_sequence=True)
    for b, n in enumerate(LENGTHS):
        mean = (data["logprobs"] - data["old"])[b, :n].mean()
        assert ratio[b, :n].tolist() == pytest.approx([math.exp(mean)] * n)
        assert (ratio[b, n:] == 1).all()


def test_the_upper_clip_has_an_eps_of_its_own():
    old, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    for log_ratio, advantage, is_clipped in ((0.25, 1, False), (0.3, 1, True), (-0.3, -1, True)):
        logprobs = torch.full((1, 1), log_ratio, requires_grad=True)
        found = policy_loss(
            logprobs, old, torch.full((1, 1), float(advantage)), mask,
            clip_eps=0.2, clip_eps_high=0.3, num_tokens=1,
        )  # fmt: skip
        found.loss.backward()
        assert bool(logprobs.grad == 0) is is_clipped


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match="is none of sum, mean, token"):
        weighted_loss("median")

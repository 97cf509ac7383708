"""KL estimators, compared with exact sums, quadrature and gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.core.kl import AdaptiveKL, FixedKL, k1, k2, k3

POLICY = [0.6, 0.3, 0.1]
REF = [0.2, 0.3, 0.5]
ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def expected(estimator, p, q):
    p, q = torch.tensor(p, dtype=torch.double), torch.tensor(q, dtype=torch.double)
    return (p * estimator(p.log(), q.log())).sum().item()


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_have_the_right_expectation_sign_and_direction(name):
    got = expected(ESTIMATORS[name], POLICY, REF)
    assert got == pytest.approx(divergence(POLICY, REF))
    assert got != pytest.approx(divergence(REF, POLICY), abs=0.05)
    assert got > 0


def test_k2_is_close_only_when_the_policies_are():
    near = [0.21, 0.3, 0.49]
    assert expected(k2, near, REF) == pytest.approx(divergence(near, REF), rel=0.02)
    far, other = [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]
    assert expected(k2, far, other) > 1.3 * divergence(far, other)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-30, 0), st.floats(-30, 0))
def test_k2_and_k3_are_never_negative_and_all_vanish_at_equality(a, b):
    a, b = torch.tensor(a, dtype=torch.double), torch.tensor(b, dtype=torch.double)
    assert k2(a, b) >= 0 and k3(a, b) >= 0
    assert [k(a, a).item() for k in ESTIMATORS.values()] == [0, 0, 0]
    torch.testing.assert_close(k1(a, b), -k1(b, a))


def test_k3_keeps_its_precision_near_equality():
    a, b = torch.tensor(-2.0), torch.tensor(-2.0 + 2**-10)
    assert k3(a, b).item() == pytest.approx(2**-21, rel=1e-3)


def gaussian_moments(estimator, shift):
    """Return mean and deviation under N(0, 1) with reference N(shift, 1), by the trapezoid rule."""
    x = torch.linspace(-14, 14, 28001, dtype=torch.double)
    density = (-0.5 * x**2).exp() / math.sqrt(2 * math.pi)
    k = estimator(-0.5 * x**2, -0.5 * (x - shift) ** 2)
    mean = torch.trapezoid(density * k, x).item()
    return mean, math.sqrt(torch.trapezoid(density * (k - mean) ** 2, x).item())


@pytest.mark.parametrize(
    ("shift", "name", "spread", "bias"),
    [
        (0.1, "k1", 20.0, 0.0),
        (0.1, "k2", 1.42, 0.0025),
        (0.1, "k3", 1.42, 0.0),
        (1.0, "k1", 2.0, 0.0),
        (1.0, "k2", 1.73, 0.25),
        (1.0, "k3", 1.70, 0.0),
    ],
)
def test_gaussian_deviation_and_bias_equal_schulmans_numbers(shift, name, spread, bias):
    true = shift**2 / 2
    mean, deviation = gaussian_moments(ESTIMATORS[name], shift)
    assert mean / true - 1 == pytest.approx(bias, abs=1e-6)
    assert deviation / true == pytest.approx(spread, abs=0.011)


def sampled_gradient(estimator, logits):
    """Return E_policy[grad k], the gradient of k used as a loss on on-policy samples."""
    logits = logits.clone().requires_grad_()
    lp = logits.log_softmax(0)
    ref = torch.tensor(REF, dtype=torch.double).log()
    (lp.detach().exp() * estimator(lp, ref)).sum().backward()
    return logits.grad


def finite_gradient(function, logits, step=1e-6):
    slopes = []
    for i in range(len(logits)):
        up, down = logits.clone(), logits.clone()
        up[i] += step
        down[i] -= step
        ends = [function(x.softmax(0).tolist()) for x in (up, down)]
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return torch.tensor(slopes, dtype=torch.double)


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("k1", lambda p: 0.0),
        ("k2", lambda p: divergence(p, REF)),
        ("k3", lambda p: divergence(REF, p)),
    ],
)
def test_k1_k2_k3_as_losses_have_zero_forward_and_reverse_kl_gradients(name, true):
    logits = torch.tensor(POLICY, dtype=torch.double).log()
    got = sampled_gradient(ESTIMATORS[name], logits)
    torch.testing.assert_close(got, finite_gradient(true, logits), atol=1e-8, rtol=1e-6)


def test_k1_in_the_reward_gives_the_gradient_of_kl():
    """grad KL = E[k1 grad log policy]; k2 and k3 in the reward would move the optimum."""
    logits = torch.tensor(POLICY, dtype=torch.double).log()
    true = finite_gradient(lambda p: divergence(p, REF), logits)
    ref = torch.tensor(REF, dtype=torch.double).log()

    def score_function(estimator):
        x = logits.clone().requires_grad_()
        lp = x.log_softmax(0)
        weight = (lp.exp() * estimator(lp, ref)).detach()
        (weight * lp).sum().backward()
        return x.grad

    torch.testing.assert_close(score_function(k1), true, atol=1e-8, rtol=1e-6)
    assert (score_function(k2) - true).abs().max() > 0.05
    assert (score_function(k3) - true).abs().max() > 0.05


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(12.0, 1.01024), (6.3, 1.00256), (6.0, 1.0), (0.0, 0.98976), (1e6, 1.01024)],
)
def test_adaptive_update_equals_the_published_numbers(kl, factor):
    controller = AdaptiveKL(0.15, target=6.0, horizon=10000)
    controller.update(kl, 512)
    assert controller.coef == pytest.approx(0.15 * factor)


def test_the_adaptive_controller_reaches_its_target():
    """With KL = 1 / coef the coefficient converges to 1 / target from either side."""
    for start in (0.02, 2.0):
        controller = AdaptiveKL(start, target=4.0, horizon=1000)
        for _ in range(400):
            controller.update(1 / controller.coef, 100)
        assert controller.coef == pytest.approx(1 / 4.0, rel=1e-2)


def test_adaptive_state_survives_a_round_trip():
    first, second = AdaptiveKL(0.1, 6.0, 1000), AdaptiveKL(0.9, 6.0, 1000)
    first.update(9.0, 100)
    second.load_state_dict(first.state_dict())
    for controller in (first, second):
        controller.update(2.0, 100)
    assert first.coef == second.coef


def test_a_fixed_coefficient_does_not_change():
    controller = FixedKL(0.05)
    controller.update(100.0, 512)
    controller.load_state_dict(controller.state_dict())
    assert controller.coef == 0.05


def test_a_fixed_coefficient_refuses_the_state_of_an_adaptive_one():
    with pytest.raises(ValueError, match="no state"):
        FixedKL(0.05).load_state_dict(AdaptiveKL(0.1, 6.0, 1000).state_dict())

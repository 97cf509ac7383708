"""Intervals, accuracies and best-of-n, compared with SciPy, brute force and closed forms."""

import itertools
import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.core.estimates import (
    best_of_n_estimate,
    bon_kl,
    calibration,
    correlation,
    ema_update_,
    mean_interval,
    pair_accuracy,
    ratio_interval,
    wilson_interval,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "core.json").read_text())
DOFS = [key for key in GOLDEN["student"] if key != "origin"]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.mark.parametrize("dof", DOFS)
def test_mean_interval_uses_students_quantile(dof):
    """With unit standard error the half width is the quantile itself."""
    n = int(dof) + 1
    x = noise(n)
    x = (x - x.mean()) / x.std() * math.sqrt(n) + 3
    for confidence, quantile in zip((0.9, 0.95, 0.99), GOLDEN["student"][dof], strict=True):
        mean, low, high = mean_interval(x, confidence)
        assert mean == pytest.approx(3)
        assert high - mean == pytest.approx(quantile, rel=1e-6)
        assert mean - low == pytest.approx(high - mean)


def test_mean_interval_has_its_nominal_coverage():
    draws = noise(1500, 5, seed=2) * 4 + 7
    covered = [low <= 7 <= high for _, low, high in map(mean_interval, draws)]
    assert statistics.fmean(covered) == pytest.approx(0.95, abs=0.017)  # three standard errors


def test_mean_interval_of_one_value_is_infinite_and_of_none_is_refused():
    assert mean_interval(torch.tensor([2.0])) == (2.0, -math.inf, math.inf)
    assert mean_interval(torch.tensor([2, 2, 2])) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="no observations"):
        mean_interval(torch.tensor([]))


def test_ratio_interval_is_of_the_pooled_ratio_and_has_its_nominal_coverage():
    """Groups of unequal size whose own means differ with their size, so that the plain mean is biased."""
    counts = torch.randint(1, 9, (400, 60), generator=torch.Generator().manual_seed(1)).double()
    sums = counts * (0.5 + 0.1 * counts) + noise(400, 60, seed=3)
    truth = (0.5 * 4.5 + 0.1 * 25.5) / 4.5  # E[c] = 4.5, E[c^2] = 25.5 for c = 1..8
    found = [ratio_interval(s, c) for s, c in zip(sums, counts, strict=True)]
    assert found[0][0] == pytest.approx(float(sums[0].sum() / counts[0].sum()))
    covered = [low <= truth <= high for _, low, high in found]
    assert statistics.fmean(covered) == pytest.approx(0.95, abs=0.033)  # three standard errors
    plain = [low <= truth <= high for _, low, high in map(mean_interval, sums / counts)]
    assert statistics.fmean(plain) < 0.85


@pytest.mark.parametrize(("successes", "n", "low", "high"), GOLDEN["wilson"]["rows"])
def test_wilson_interval_equals_scipys(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((successes / n, low, high), abs=1e-9)


@given(st.integers(1, 500), st.floats(0, 1), st.floats(0.5, 0.999))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_ends_of_the_wilson_interval_solve_the_score_test(n, share, confidence):
    successes = round(share * n)
    p, low, high = wilson_interval(successes, n, confidence)
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    assert 0 <= low <= p <= high <= 1
    for end in (low, high):
        assert (p - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="trials"):
        wilson_interval(successes, n)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_correlation_equals_the_statistics_module(points):
    x, y = (list(map(float, column)) for column in zip(*points, strict=True))
    got = correlation(torch.tensor(x), torch.tensor(y))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(statistics.correlation(x, y), abs=1e-9)


def test_correlation_of_a_line_is_plus_or_minus_one():
    x = noise(9)
    assert correlation(x, 3 * x + 100) == pytest.approx(1)
    assert correlation(x, -0.1 * x) == pytest.approx(-1)


def test_pair_accuracy_counts_a_tie_as_wrong():
    """A model with equal scores everywhere has accuracy 0, not 0.5."""
    pairs = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])
    assert pair_accuracy(torch.tensor([3.0, 2.0, 2.0, 1.0]), pairs) == 0.5
    assert pair_accuracy(torch.zeros(4), pairs) == 0.0


def test_pair_accuracies_of_both_orders_and_the_ties_sum_to_one():
    scores = noise(30).round(decimals=0)
    pairs = torch.tensor(list(itertools.combinations(range(30), 2)))
    ties = sum(scores[i] == scores[j] for i, j in pairs.tolist()) / len(pairs)
    total = pair_accuracy(scores, pairs) + pair_accuracy(scores, pairs.flip(1)) + ties
    assert total == pytest.approx(1)
    assert pair_accuracy(scores.exp(), pairs) == pair_accuracy(scores, pairs)


def test_calibration_equals_values_computed_by_hand():
    prob, outcome = torch.tensor([0.05, 0.15, 0.15, 1.0, 0.95]), torch.tensor([0, 0, 1, 1, 0])
    rows, ece = calibration(prob, outcome)
    assert [(row.low, row.high, row.count) for row in rows] == [
        (0, 0.1, 1),
        (0.1, 0.2, 2),
        (0.9, 1, 2),
    ]
    assert [row.confidence for row in rows] == pytest.approx([0.05, 0.15, 0.975])
    assert [row.accuracy for row in rows] == pytest.approx([0, 0.5, 0.5])
    assert ece == pytest.approx((1 * 0.05 + 2 * 0.35 + 2 * 0.475) / 5)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(1, 12)
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_calibration_equals_a_loop_over_the_bins(points, bins):
    prob = torch.tensor([p for p, _ in points], dtype=torch.double)
    rows, ece = calibration(prob, torch.tensor([float(o) for _, o in points]), bins)
    gaps = 0.0
    for i in range(bins):
        mine = [(p, o) for p, o in points if min(int(p * bins), bins - 1) == i]
        gaps += abs(sum(o for _, o in mine) - sum(p for p, _ in mine))
    assert ece == pytest.approx(gaps / len(points), abs=1e-9)
    assert sum(row.count for row in rows) == len(points)


def test_true_probabilities_are_calibrated_and_doubled_gaps_are_not():
    """For Bradley-Terry labels of known gaps, sigmoid(gap) is exact and sigmoid(2 gap) too sure."""
    generator = torch.Generator().manual_seed(5)
    gap = noise(20000, seed=6).abs()
    outcome = torch.rand(20000, generator=generator, dtype=torch.double) < gap.sigmoid()
    assert calibration(gap.sigmoid(), outcome)[1] < 0.015
    overconfident, ece = calibration((2 * gap).sigmoid(), outcome)
    assert ece > 0.08 and all(row.confidence > row.accuracy for row in overconfident[1:])


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32, 64, 1000])
def test_bon_kl_equals_the_published_numbers(n):
    assert bon_kl(1) == 0
    assert bon_kl(n) == pytest.approx(GOLDEN["best_of_n"]["kl"][str(n)], abs=1e-6)


def best_of_n_policy(ref, n):
    """Return F(y)^n - F(y-)^n of outcomes listed from the worst to the best."""
    below = [0.0, *itertools.accumulate(ref)]
    return [high**n - low**n for low, high in itertools.pairwise(below)]


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("m", [2, 4, 10, 100])
def test_bon_kl_bounds_the_exact_kl_of_discrete_outcomes(m):
    exact = divergence(best_of_n_policy([1 / m] * m, 4), [1 / m] * m)
    assert exact == pytest.approx(GOLDEN["best_of_n"]["discrete_kl_of_4"][str(m)], abs=1e-6)
    assert exact < bon_kl(4)
    fine = divergence(best_of_n_policy([1e-4] * 10000, 4), [1e-4] * 10000)
    assert fine == pytest.approx(bon_kl(4), abs=1e-6)


def test_best_of_four_on_four_arms_equals_the_published_numbers():
    """Scores (1, .5, 0, -1), reference (.1, .2, .3, .4): published policy, KL and mean score."""
    ref, scores = [0.4, 0.3, 0.2, 0.1], [-1.0, 0.0, 0.5, 1.0]
    policy = best_of_n_policy(ref, 4)
    assert policy[::-1] == pytest.approx([0.3439, 0.4160, 0.2145, 0.0256], abs=5e-5)
    assert divergence(policy, ref) == pytest.approx(0.587114, abs=1e-6)
    assert divergence(policy, ref) <= bon_kl(4)
    mean = sum(p * s for p, s in zip(policy, scores, strict=True))
    assert mean == pytest.approx(0.5263, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_the_estimate_of_best_of_n_is_the_mean_over_all_subsets(n):
    """Of six samples, two of which have the same proxy score: a subset may take either."""
    proxy = torch.tensor([[0.3, -1.0, 2.0, 0.3, 5.0, 4.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    values = torch.tensor([[1.0, 7.0, -2.0, 3.0, 0.5, 9.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    expected = []
    for scores, gold in zip(proxy.tolist(), values.tolist(), strict=True):
        found = []
        for subset in itertools.combinations(range(6), n):
            best = max(scores[i] for i in subset)
            found.append(statistics.fmean(gold[i] for i in subset if scores[i] == best))
        expected.append(statistics.fmean(found))
    assert best_of_n_estimate(proxy, values, n).tolist() == pytest.approx(expected)


def test_the_estimate_of_best_of_one_is_the_mean_and_of_all_is_the_best():
    proxy = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    values = proxy + 1
    assert torch.allclose(best_of_n_estimate(proxy, values, 1), values.double().mean(1))
    assert torch.allclose(best_of_n_estimate(proxy, values, 40), values.double().amax(1))
    with pytest.raises(ValueError, match="best of 41 of 40"):
        best_of_n_estimate(proxy, values, 41)


def test_ema_equals_its_unrolled_sum():
    average, seen = torch.zeros(3, dtype=torch.double), noise(6, 3)
    for x in seen:
        ema_update_([average], [x], 0.9)
    want = sum(0.1 * 0.9 ** (5 - i) * x for i, x in enumerate(seen))
    torch.testing.assert_close(average, want)


def test_ema_of_instructgpt_halves_in_86_steps():
    """Decay .992: half-life 86.3 updates."""
    average, zero = torch.ones(1, dtype=torch.double), torch.zeros(1, dtype=torch.double)
    steps = 0
    while average.item() > 0.5:
        ema_update_([average], [zero], 0.992)
        steps += 1
    assert steps == 87
    assert math.log(0.5) / math.log(0.992) == pytest.approx(86.3, abs=0.05)


def test_ema_of_equal_weights_is_constant_and_has_no_gradient():
    parameter = torch.nn.Parameter(noise(3))
    average = [parameter.detach().clone()]
    ema_update_(average, [parameter], 0.992)
    torch.testing.assert_close(average[0], parameter.detach())
    assert not average[0].requires_grad and parameter.grad is None


def test_ema_refuses_networks_of_different_length_and_keeps_its_own_dtype():
    with pytest.raises(ValueError):
        ema_update_([torch.zeros(1), torch.zeros(1)], [torch.zeros(1)], 0.9)
    average = torch.zeros(1)
    ema_update_([average], [torch.ones(1, dtype=torch.bfloat16)], 0.9)
    assert average.dtype == torch.float32 and average.item() == pytest.approx(0.1)

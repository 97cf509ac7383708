"""The bootstrap against simulated coverage, and its resamples."""

import pytest
import torch

from rlhf_cli.core.bootstrap import RESAMPLES, bootstrap, mean_bootstrap, percentile_interval


def test_the_interval_covers_the_true_mean_of_simulated_pairs():
    """600 samples of 150 pairs with P(win) = .62 and ties: the interval holds the truth in 93 to 97 %."""
    drawn = torch.rand(600, 150, generator=torch.Generator().manual_seed(1))
    values = (drawn < 0.54).double() + 0.5 * ((drawn >= 0.54) & (drawn < 0.70)).double()
    truth = 0.54 + 0.5 * 0.16
    covered = 0
    for seed, sample in enumerate(values):
        _, low, high = mean_bootstrap(sample, seed=seed)
        covered += low <= truth <= high
    assert 0.93 <= covered / len(values) <= 0.97


def test_resamples_depend_on_their_number_and_the_seed_alone():
    values = torch.arange(5.0)
    one, again = (bootstrap(lambda i: values[i].mean(1), 5, seed=3) for _ in range(2))
    assert len(one) == RESAMPLES and torch.equal(one, again)
    assert not torch.equal(one, bootstrap(lambda i: values[i].mean(1), 5, seed=4))


def test_a_difference_is_paired():
    """Of two statistics that differ by a constant the difference has no width."""
    values = torch.randn(40, generator=torch.Generator().manual_seed(2))
    ours, theirs = (
        bootstrap(lambda i, x=x: x[i].mean(1), 40, seed=1) for x in (values + 1, values)
    )
    assert torch.allclose(ours - theirs, torch.ones(RESAMPLES))


def test_the_resamples_of_many_prompts_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("rlhf_cli.core.bootstrap.AT_ONCE", 70)
    sizes = []

    def count(index):
        sizes.append(len(index))
        return index.double().mean(1)

    assert len(bootstrap(count, 10, seed=1)) == RESAMPLES
    assert max(sizes) == 7 and sum(sizes) == RESAMPLES


def test_the_ends_are_percentiles():
    assert percentile_interval(50.0, torch.arange(101.0)) == pytest.approx((50.0, 2.5, 97.5))

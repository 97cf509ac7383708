"""Win rates and their control for length, against simulations whose truth is known."""

import math

import pytest
import torch

from rlhf_cli.evaluation.win_rates import length_controlled, outcomes, rate_at_zero, win_rate


def simulated(num: int, *, b: float, shift: float, quality: float = 0.0, seed: int = 0):
    """Return outcomes and length differences of pairs whose judge adds b tanh(d / sd) to the logit."""
    drawn = torch.Generator().manual_seed(seed)
    d = torch.randn(num, generator=drawn, dtype=torch.float64) + shift
    p = torch.sigmoid(quality + b * torch.tanh(d / d.std(correction=0)))
    return (torch.rand(num, generator=drawn, dtype=torch.float64) < p).double(), 40 * d


def test_a_judge_that_likes_length_is_controlled_for():
    """Equal quality, b = 1.5, one side longer by .8 sd: plain .651 +- .012, controlled .500 +- .017."""
    found = [simulated(2000, b=1.5, shift=0.8, seed=seed) for seed in range(40)]
    plain = torch.tensor([float(won.mean()) for won, _ in found])
    won, d = (torch.stack(rows) for rows in zip(*found, strict=True))
    controlled = rate_at_zero(won, torch.tanh(d / d.std(1, correction=0, keepdim=True)))
    assert plain.mean().item() == pytest.approx(0.651, abs=0.012)
    assert controlled.mean().item() == pytest.approx(0.500, abs=0.017)
    assert controlled.std().item() < 0.025


def test_quality_remains():
    won, d = simulated(1000, b=1.5, shift=0.8, quality=1.0)
    _, low, high = length_controlled(won, d, seed=1)
    assert low < 1 / (1 + math.exp(-1)) < high and high - low < 0.16


def test_the_fit_is_that_of_a_search_over_a_grid():
    """The penalised log-likelihood has no better point on a fine grid."""
    won, d = simulated(60, b=0.7, shift=0.3, seed=5)
    x = torch.tanh(d / d.std(correction=0))
    a, b = torch.meshgrid(torch.linspace(-1, 2, 301), torch.linspace(-1, 3, 201), indexing="ij")
    logits = a[..., None].double() + b[..., None] * x
    fit = (won * logits - torch.nn.functional.softplus(logits)).sum(-1) - 0.0005 * b**2
    best = a.flatten()[fit.argmax()].item()
    assert length_controlled(won, d, seed=1)[0] == pytest.approx(
        1 / (1 + math.exp(-best)), abs=3e-3
    )


def test_equal_lengths_give_the_plain_rate():
    won = torch.tensor([1.0, 0.0, 1.0, 0.5])
    assert length_controlled(won, torch.full((4,), 3.0), seed=1) == win_rate(won, seed=1)


@pytest.mark.parametrize(("won", "rate"), [(torch.ones(30), 1.0), (torch.zeros(30), 0.0)])
def test_a_side_that_wins_every_time_has_a_finite_fit(won, rate):
    value, low, high = length_controlled(won, torch.arange(30), seed=1)
    assert value == pytest.approx(rate, abs=1e-3) and math.isfinite(low + high)


def test_ties_count_half_and_equal_answers_are_ties():
    ours, theirs = torch.tensor([2.0, 1.0, 1.0, 5.0]), torch.tensor([1.0, 2.0, 1.0, 4.9999])
    same = torch.tensor([False, False, False, True])
    assert outcomes(ours, theirs, same).tolist() == [1.0, 0.0, 0.5, 0.5]

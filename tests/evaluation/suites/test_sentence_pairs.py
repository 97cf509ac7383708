"""Preferences within pairs and the entropy of the two probabilities."""

import pytest
import torch
from scipy.stats import entropy

from rlhf_cli.evaluation.suites.sentence_pairs import entropy_bits, pair_figures


def gaps(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("one", "other"), [(0.5, 0.5), (0.9, 0.1), (0.03, 0.001), (1e-9, 0.2)])
def test_the_entropy_is_that_of_the_two_normalised_probabilities(one, other):
    expected = entropy([one, other], base=2)  # scipy normalises them
    gap = gaps(one).log() - gaps(other).log()
    assert entropy_bits(gap).tolist() == pytest.approx([expected])


def test_the_entropy_of_a_certain_preference_is_zero():
    assert entropy_bits(gaps(800, -800)).tolist() == [0, 0]
    assert entropy_bits(gaps(0)).tolist() == [1]


def test_a_tie_prefers_no_sentence_and_is_one_of_the_pairs():
    found = pair_figures(
        "crows_pairs", "stereotype", gaps(1, -2, 0, 3, 0), list("aabbb"), policy="SFT"
    )
    values = {(f.measure, f.group): (f.value, f.count) for f in found}
    assert values["crows_pairs/stereotype", None] == (0.4, 5)
    assert values["crows_pairs/stereotype", "a"] == (0.5, 2)
    assert values["crows_pairs/stereotype", "b"] == (pytest.approx(1 / 3), 3)
    assert values["crows_pairs/ties", None] == (0.4, 5)
    mean = (entropy([1, 2.718281828459045], base=2) + 1) / 2
    both = [f for f in found if f.measure == "crows_pairs/entropy" and f.group == "b"]
    expected = entropy([20.085536923187668, 1], base=2)
    assert both[0].value == pytest.approx((expected + 2) / 3)
    assert mean > both[0].low  # its interval is Student's, about the mean
    assert both[0].low < both[0].value < both[0].high
    assert {f.policy for f in found} == {"SFT"}

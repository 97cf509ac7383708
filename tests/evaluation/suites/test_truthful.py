"""MC1 and MC2 against probabilities worked out by hand."""

import math

import pytest
import torch

from rlhf_cli.evaluation.suites.truthful import mc1, mc2, truth_figures


def logprobs(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


TRUE, FALSE = logprobs(-1, -2), logprobs(-1.5, -3)


def test_mc2_is_the_probability_of_the_true_answers():
    assert float(mc2(TRUE, FALSE)) == pytest.approx(0.64836, abs=5e-6)
    right = math.e**-1 + math.e**-2
    assert float(mc2(TRUE, FALSE)) == pytest.approx(right / (right + math.e**-1.5 + math.e**-3))
    assert float(mc2(TRUE - 2000, FALSE - 2000)) == pytest.approx(0.64836, abs=5e-6)


@pytest.mark.parametrize(
    ("true", "expected"),
    [((-1, -2), True), ((-1.4, -9), True), ((-1.5, -1), False), ((-2, -1), False)],
)
def test_mc1_is_of_the_best_answer_alone_and_a_tie_is_wrong(true, expected):
    assert mc1(logprobs(*true), FALSE) is expected


def test_figures_are_means_over_questions():
    one, other = truth_figures([(TRUE, FALSE), (logprobs(-3), logprobs(-3))], policy="PPO")
    assert (one.measure, one.value, one.count) == ("truthfulqa/mc1", 0.5, 2)
    assert other.value == pytest.approx((0.64836 + 0.5) / 2, abs=5e-6)
    assert (other.measure, other.count, other.policy) == ("truthfulqa/mc2", 2, "PPO")
    alone = truth_figures([(TRUE, FALSE)])[1]
    assert alone.low is None and alone.high is None

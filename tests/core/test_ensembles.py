"""One score from those of several reward models."""

import pytest
import torch

from rlhf_cli.core.ensembles import combined_scores, members_std

SCORES = torch.tensor([[1.0, 2.0], [3.0, 2.0], [5.0, -1.0]])


@pytest.mark.parametrize(
    ("combine", "penalty", "expected"),
    [
        ("mean", 9.0, [3.0, 1.0]),
        ("worst", 9.0, [1.0, -1.0]),
        ("penalised", 0.5, [3.0 - 0.5 * 8 / 3, 1.0 - 0.5 * 2.0]),  # population variances
        ("penalised", 0.0, [3.0, 1.0]),
    ],
)
def test_the_members_scores_become_one(combine, penalty, expected):
    found = combined_scores(SCORES, combine=combine, penalty=penalty)
    assert found.tolist() == pytest.approx(expected)


def test_one_member_is_its_own_score_however_it_is_combined():
    for combine in ("mean", "worst", "penalised"):
        assert torch.equal(combined_scores(SCORES[:1], combine=combine, penalty=0.5), SCORES[0])


def test_the_deviation_is_that_of_the_population():
    assert members_std(SCORES).tolist() == pytest.approx([(8 / 3) ** 0.5, 2**0.5])
    assert members_std(SCORES[:1]).tolist() == [0.0, 0.0]

"""Votes over sampled answers, against the binomial distribution and by hand."""

from itertools import product
from math import prod

import pytest

from rlhf_cli.evaluation.votes import block_votes, plurality


def share_right(p: float, n: int) -> float:
    """Return how often n voters elect "right", each of whom votes for it with probability p."""
    chances = {"right": p, "wrong": 1 - p}
    elections = product(chances, repeat=n)
    return sum(
        prod(chances[v] for v in votes) for votes in elections if plurality(votes) == "right"
    )


@pytest.mark.parametrize(
    ("p", "n", "expected"),
    [(0.6, 5, 0.68256), (0.6, 11, 0.75350), (0.4, 5, 0.31744), (0.4, 11, 0.24650), (0.5, 5, 0.5)],
)
def test_votes_follow_the_binomial_distribution(p, n, expected):
    assert share_right(p, n) == pytest.approx(expected, abs=5e-6)


def test_a_tie_goes_to_the_answer_seen_first():
    assert plurality(["7", "8", "8", "7"]) == "7"
    assert plurality(["9", "8", "7", "8", "7"]) == "8"


def test_unreadable_answers_do_not_vote():
    assert plurality([None, None, "7"]) == "7"
    assert plurality([None, None]) is None
    assert plurality([]) is None


def test_blocks_are_disjoint_and_of_every_size_that_divides():
    answers = ["1", "2", "2", None, "3", "3"]
    assert block_votes(answers) == {
        1: ["1", "2", "2", None, "3", "3"],
        2: ["1", "2", "3"],
        3: ["2", "3"],
        6: ["2"],
    }
    assert list(block_votes(["1"] * 4)) == [1, 2, 4]

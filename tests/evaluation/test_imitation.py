"""Log-probs of people's best and worst responses: which they are, and means worked out by hand."""

import math

import pytest

from rlhf_cli.artifacts.results import select
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.data.records import Comparison, Message, Origin
from rlhf_cli.evaluation.imitation import imitation_figures, sides_of


def comparison(prompt, responses, better, ties=()):
    record = Comparison(
        (Message("user", "x"),), ("y",) * len(responses), better, (), Origin("a", 0)
    )
    return EncodedComparison(
        prompt_ids=prompt, response_ids=responses, better=better, ties=ties, record=record
    )


# The first has two best responses, of two and of one token, and one worst of three; the second, which
# has ties only, is left out; of the third response 1 is neither best nor worst.
COMPARISONS = [
    comparison([5], [[6, 1], [7, 8, 1], [1]], ((0, 1), (2, 1)), ((0, 2),)),
    comparison([5], [[6], [7]], (), ((0, 1),)),
    comparison([9], [[7, 1], [8, 1], [6, 6, 6, 1]], ((2, 1), (1, 0), (2, 0))),
]


def test_the_sides_are_the_responses_that_never_lose_and_those_that_never_win():
    sides = sides_of(COMPARISONS)
    assert [[(row.prompt_ids, row.ids) for row in rows] for rows in sides["chosen"].responses] == [
        [([5], [6, 1]), ([5], [1])],
        [([9], [6, 6, 6, 1])],
    ]
    assert [[row.ids for row in rows] for rows in sides["rejected"].responses] == [
        [[7, 8, 1]],
        [[7, 1]],
    ]


def test_values_of_a_prompt_are_means_over_its_responses():
    means = sides_of(COMPARISONS)["chosen"].means([-3.0, -1.0, -10.0])
    assert means["logprob"].tolist() == [-2.0, -10.0]
    assert means["logprob_per_token"].tolist() == [(-1.5 - 1.0) / 2, -2.5]


def test_differences_from_the_base_model_are_paired():
    """The values differ by 8 between prompts, the differences from the base by 1."""
    side = sides_of(COMPARISONS)["chosen"]
    base, policy = side.means([-3.0, -1.0, -10.0]), side.means([-2.0, 0.0, -8.0])
    figures = imitation_figures("SFT", {"chosen": policy}, {"chosen": base})
    assert {(one.part, one.policy, one.group, one.count) for one in figures} == {
        ("imitation", "SFT", "chosen", 2)
    }
    (whole,) = select(figures, measure="logprob")
    (gained,) = select(figures, measure="logprob_minus_base")
    (per_token,) = select(figures, measure="logprob_per_token_minus_base")
    assert (whole.value, gained.value) == (-4.5, 1.5)
    # (-1 + 0) / 2 + 1.25 and -2 + 2.5
    assert per_token.value == pytest.approx((0.75 + 0.5) / 2)
    # Student's quantile for one degree of freedom is tan(0.475 pi); the standard error is half the gap
    quantile = math.tan(0.475 * math.pi)
    assert whole.high - whole.value == pytest.approx(quantile * 3.5, rel=1e-6)
    assert gained.high - gained.value == pytest.approx(quantile * 0.5, rel=1e-6)


def test_the_base_model_has_no_differences_and_one_prompt_no_interval():
    side = sides_of(COMPARISONS[:1])["rejected"]
    figures = imitation_figures("base", {"rejected": side.means([-6.0])}, None)
    found = {one.measure: (one.value, one.low, one.high) for one in figures}
    assert found == {"logprob": (-6.0, None, None), "logprob_per_token": (-2.0, None, None)}

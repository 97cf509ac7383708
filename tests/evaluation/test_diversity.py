"""Diversity of texts: published anchors, brute force, and the faults of the published code."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from rlhf_cli.evaluation.diversity import (
    cosine_distance,
    ead_by_order,
    mean_ead,
    nli_distance,
    nli_scores,
    per_input_ead,
    repeats_itself,
)

V = 50257
TEXTS = ["the cat saw the dog.", "the cat saw an owl", "a dog saw the cat\n", "cold."]


def distinct(*numbers: int) -> str:
    return " ".join(f"w{n}" for n in numbers)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["cold"], 1.0),
        ([distinct(*range(100))], 1.00099),
        ([distinct(*range(20))] * 16, 0.06270),
    ],
)
def test_ead_of_unigrams_has_the_published_anchors(texts, expected):
    assert float(ead_by_order(texts, V)[0]) == pytest.approx(expected, abs=5e-6)


def exact_ead(texts: list[str], n: int, vocab: int) -> Fraction:
    """Return EAD in exact arithmetic, with the expected number of distinct draws counted draw by draw."""
    pooled = []
    for text in texts:
        kept = "".join(letter for letter in text if letter not in ".\n").split()
        pooled += [tuple(kept[i : i + n]) for i in range(len(kept)) if i + n <= len(kept)]
    expected = Fraction(0)
    for _ in pooled:  # the next draw is new with the share of the vocabulary that is not drawn yet
        expected += 1 - expected / vocab
    return Fraction(len(set(pooled))) / expected


@pytest.mark.parametrize("vocab", [7, V])
def test_ead_equals_the_share_of_the_expected_number_of_distinct_ngrams(vocab):
    """It is pooled over the set, and V is the same for every n."""
    found = ead_by_order(TEXTS, vocab).tolist()
    assert found == pytest.approx([float(exact_ead(TEXTS, n, vocab)) for n in range(1, 6)])
    assert len(set(found)) > 3


def test_an_order_without_ngrams_is_left_out_of_the_mean():
    found = ead_by_order(["red dog", "red cat"], V)
    assert [math.isnan(x) for x in found.tolist()] == [False, False, True, True, True]
    assert float(mean_ead(found)) == pytest.approx((float(found[0]) + float(found[1])) / 2)
    assert float(mean_ead(ead_by_order(["", "."], V))) == 0


def test_the_ead_of_equal_texts_does_not_depend_on_their_length():
    for text in ("cold", "the answer is cold", distinct(*range(30))):
        assert per_input_ead([[text] * 8], V).item() == pytest.approx(1 / 8, rel=0.01)


def test_the_ead_of_an_input_is_that_of_its_own_responses():
    found = per_input_ead([TEXTS, ["cold"] * 4], V)
    for value, texts in zip(found, (TEXTS, ["cold"] * 4), strict=True):
        assert float(value) == float(mean_ead(ead_by_order(texts, V)))
    assert found[0] > found[1]


def test_the_cosine_distance_is_the_mean_over_all_pairs():
    states = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [
        1 - float(torch.cosine_similarity(states[i], states[j], dim=0))
        for i, j in itertools.combinations(range(5), 2)
    ]
    assert cosine_distance(states) == pytest.approx(sum(pairs) / 10)
    assert cosine_distance(torch.tensor([[1.0, 2], [10, 20], [0.1, 0.2]])) == pytest.approx(0)
    assert cosine_distance(torch.tensor([[1.0, 0], [-2, 0]])) == pytest.approx(2)


def test_the_likeliest_label_alone_counts_with_its_probability():
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    assert nli_scores(probs).tolist() == pytest.approx([0.5, -0.7, 0.0])


def test_the_nli_distance_sums_both_directions_and_averages_over_pairs():
    scores = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pairs = list(itertools.permutations(range(4), 2))
    expected = 2 * sum(float(scores[i, j]) for i, j in pairs) / len(pairs)
    assert nli_distance(scores) == pytest.approx(expected)


def test_the_nli_distance_of_equal_texts_is_its_minimum():
    """The published code turns the sign around once more: there equal texts are the most different."""
    entailed, contradicted = torch.full((3, 3), -1.0), torch.full((3, 3), 1.0)
    assert nli_distance(entailed) == -2
    assert nli_distance(contradicted) == 2
    assert nli_distance(torch.zeros(3, 3)) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c d a b c d a b c d", True),
        ("a b c d a b c d a b c", False),
        ("no no no no no no", True),
        ("no no no no no", False),
        ("a b c a b c a b c", False),  # three trigrams
        ("", False),
    ],
)
def test_a_text_repeats_itself_where_a_4gram_occurs_three_times(text, expected):
    assert repeats_itself(text) is expected

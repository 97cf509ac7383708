"""Near texts: the exact similarity against sets, and the candidates against all pairs."""

from random import Random

import numpy as np
import pytest

from rlhf_cli.data.near import BANDS, THRESHOLD, bands, candidates, near_pairs, similarity

WORDS = [f"word{i}" for i in range(400)]


def runs_of(text: str) -> set[tuple[str, ...]]:
    """The runs of three words, as a set."""
    words = text.split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def jaccard(first: set, second: set) -> float:
    return len(first & second) / len(first | second)


def mixture(num: int, seed: int) -> list[str]:
    """Texts of which many are others with a few words changed."""
    rng = Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(8, 60))) for _ in range(num)]
    for i in range(num // 2, num):
        words = texts[rng.randrange(num // 2)].split()
        for _ in range(rng.randint(0, 5)):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        texts[i] = " ".join(words)
    return texts


def test_the_similarity_is_jaccards_over_runs_of_three_words():
    texts = mixture(20, 0)
    for first in texts:
        for second in texts[10:]:
            expected = jaccard(runs_of(first), runs_of(second))
            assert similarity(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Why, oh WHY?", "why oh why", True),
        ("yes", "Yes.", True),
        ("yes", "no", False),
        ("a b c", "a b", False),
        ("...", "...", True),
        ("...", "!", False),
        ("naïve 東京", "naïve 東京", True),
        ("\ud800", "\ud800", True),
    ],
)
def test_case_and_signs_make_no_difference_and_words_do(first, second, same):
    assert (similarity(first, second) == 1.0) == same


def test_what_is_found_is_near_and_nearly_all_that_is_near_is_found():
    texts = mixture(200, 0)
    runs = [runs_of(text) for text in texts]
    found = dict(near_pairs(len(texts), lambda i: (texts[i],)))
    near = {i for i in range(200) for j in range(i) if jaccard(runs[i], runs[j]) >= THRESHOLD}
    assert len(near) > 20
    assert all(j < i and jaccard(runs[i], runs[j]) >= THRESHOLD for i, j in found.items())
    assert len(found) >= 0.97 * len(near)


def test_each_part_of_a_text_must_be_near():
    shared = " ".join(WORDS[:100])
    rows = [(shared, "yes"), (shared, "no"), (shared, "Yes")]
    assert list(near_pairs(3, lambda i: rows[i])) == [(2, 0)]


def test_only_pairs_that_count_are_looked_at():
    texts = ["a b c d"] * 3
    assert list(near_pairs(3, lambda i: (texts[i],), lambda i, j: j == 1)) == [(2, 1)]


def test_there_are_few_candidates_however_many_texts_agree():
    columns = np.zeros((500, BANDS), np.uint64)
    expected = [(i, j) for i in range(1, 500) for j in sorted({0, i - 1})]
    assert list(candidates(columns)) == expected


def test_a_long_text_is_cut_and_an_empty_list_has_no_pairs():
    long = "word " * 100_000
    assert similarity(long, long + "more") == 1.0
    assert bands(0, []).shape == (0, BANDS)
    assert list(near_pairs(0, lambda i: ("",))) == []

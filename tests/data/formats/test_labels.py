"""Labels of comparisons: invalid labels never become a preference."""

import math

import pytest

from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats.labels import from_labels, from_ranks, from_scores, judgement
from rlhf_cli.data.formats.table import convert
from rlhf_cli.data.records import Origin, RowError

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("values", "reason", "detail"),
    [
        ([1, NAN, 2], "null score", "score 1 is NaN, not annotated"),
        ([NAN, NAN, NAN], "null score", "score 0 is NaN, not annotated"),
        ([1, "nan", 2], "null score", "score 1 is NaN, not annotated"),
        ([1, None, 2], "null score", "score 1 is null"),
        ([1, INF, 2], "a label that cannot be read", "score 1 is not finite"),
        ([1, "-inf", 2], "a label that cannot be read", "score 1 is not finite"),
        ([1, True, 2], "a label that cannot be read", "score 1 is True"),
        ([1, "1_0", 2], "a label that cannot be read", "score 1 is '1_0'"),
        ([1, [2], 2], "a label that cannot be read", "score 1 is [2]"),
        ([1, 2], "a label that cannot be read", "[1, 2] for 3 responses"),
        (7, "a label that cannot be read", "7 for 3 responses"),
    ],
)
def test_scores_and_ranks_that_are_not_finite_numbers_are_bad_rows(values, reason, detail):
    with pytest.raises(RowError) as error:
        from_scores(values, 3)
    assert (error.value.reason, error.value.detail) == (reason, detail)
    with pytest.raises(RowError, match=reason.replace("score", "rank")):
        from_ranks(values, 3)


def test_large_integers_are_compared_exactly():
    scores = [2**53 + 1, 2**53, str(2**53 + 2)]
    assert set(from_scores(scores, 3)[0]) == {(0, 1), (2, 0), (2, 1)}
    assert from_scores([10**400, 1], 2)[0] == ((0, 1),)


@pytest.mark.parametrize(
    ("pairs", "detail"),
    [
        (7, "pairs is 7: expected [[i, j, label], ...]"),
        ({"0": 1}, "pairs is {'0': 1}: expected [[i, j, label], ...]"),
        ([[0, True, 1]], "[0, True, 1] for 2 responses"),
        ([[0, 1.0, 1]], "[0, 1.0, 1] for 2 responses"),
    ],
)
def test_pairs_that_are_no_triples_are_refused_with_the_expected_form(pairs, detail):
    with pytest.raises(RowError) as error:
        from_labels(pairs, 2)
    assert error.value.detail == detail


def of_many(columns=None, **labels):
    row = {"prompt": "Why?", "responses": ["a", "b", "c"], **labels}
    source = Source(path="a.jsonl", columns=columns or {})
    return convert(row, Origin("a.jsonl", 1), source, "comparisons")[0][0]


def test_labels_that_contradict_each_other_are_a_bad_row():
    assert of_many(rank=[0, 1, 2], scores=[9, 5, 1]).better == ((0, 1), (0, 2), (1, 2))
    assert of_many(pairs=[[0, 1, 1]], scores=[9, 5, 1]).better == ((0, 1),)
    for labels in ({"scores": [0, 1, 2]}, {"pairs": [[0, 1, 0]]}, {"pairs": [[2, 1, 1]]}):
        with pytest.raises(RowError, match="labels that contradict each other"):
            of_many(rank=[0, 1, 2], **labels)
    chosen = of_many(columns={"rank": "rank"}, rank=[0, 1, 2], scores=[0, 1, 2])
    assert chosen.better == ((0, 1), (0, 2), (1, 2))


def test_a_judgement_is_true_or_false_in_every_notation():
    assert [judgement(x) for x in (True, 1, "True", "1")] == [True] * 4
    assert [judgement(x) for x in (False, 0, "false", "0")] == [False] * 4
    for other in (None, 2, "good", 0.5, [True]):
        with pytest.raises(RowError, match=r"expected true \(good\) or false \(bad\)"):
            judgement(other)

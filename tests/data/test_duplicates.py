"""Copies and near copies are reported with the earlier row; different texts are not.

The expected similarities are those of sets of runs of words.
"""

from collections import Counter
from random import Random

import numpy as np
import pytest

from rlhf_cli.config.schema import Source
from rlhf_cli.data.duplicates import (
    BANDS,
    CONTRARY,
    THRESHOLD,
    bands,
    candidates,
    near_pairs,
    similarity,
)
from rlhf_cli.pipeline.data_check import check_all

LONG = " ".join(f"word{i}" for i in range(40))
WORDS = [f"word{i}" for i in range(400)]


def row(i, prompt="", **more):
    return {"prompt": f"{i} {i + 1} {i + 2} {i}{prompt}", "response": f"r {i} {i + 5}"} | more


def notes(config, renderer, **data):
    """Return {what: [(the row, the earlier row)]} of all roles."""
    return {
        what: [(str(row.origin).rpartition("/")[2], row.detail.rpartition("/")[2]) for row in rows]
        for report in check_all(config(**data), renderer, num_examples=None)
        for what, rows in report.examples.items()
    }


def runs_of(text: str) -> set[tuple[str, ...]]:
    """Return the runs of three words, as a set."""
    words = text.split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def jaccard(first: set, second: set) -> float:
    return len(first & second) / len(first | second)


def mixture(num: int, seed: int) -> list[str]:
    """Return texts, half of which are others with a few words changed."""
    rng = Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(8, 60))) for _ in range(num)]
    for i in range(num // 2, num):
        words = texts[rng.randrange(num // 2)].split()
        for _ in range(rng.randint(0, 5)):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        texts[i] = " ".join(words)
    return texts


def test_copies_within_a_file_and_between_files_are_reported_separately(
    config, write, plain_renderer
):
    rows = [row(i) for i in range(40)]
    rows.append(row(3) | {"response": "R  3\n8"})  # case and spaces do not count
    first, second = write("a.jsonl", rows), write("b.jsonl", [row(7), row(100)])
    found = notes(config, plain_renderer, demonstrations=[first, second])
    (copy,) = found["a copy of an earlier row"]
    assert set(copy) == {"a.jsonl:41", "a.jsonl:4"}
    (copy,) = found["a copy of a row of another file"]
    assert set(copy) == {"b.jsonl:1", "a.jsonl:8"}
    assert len(found) == 2


def test_every_row_of_a_repeated_file_is_a_copy(config, write, plain_renderer):
    path = write("a.jsonl", [row(i) for i in range(40)])
    (report,) = check_all(config(demonstrations=[path, path]), plain_renderer)
    assert report.notes == {"a copy of an earlier row": 40}


def test_near_copies_are_reported_and_other_answers_to_a_long_prompt_are_not(
    config, write, plain_renderer
):
    rows = [row(i) for i in range(30)]
    rows += [row(50, f" {LONG}", response=LONG), row(50, f" {LONG}", response=f"{LONG} indeed")]
    rows += [row(60, f" {LONG}", response="yes"), row(60, f" {LONG}", response="no")]
    found = notes(config, plain_renderer, demonstrations=[write("a.jsonl", rows)])
    assert found == {"nearly a copy of an earlier row": [("a.jsonl:32", "a.jsonl:31")]}


def test_contradictory_comparisons_are_reported(config, write, plain_renderer):
    def pair(i, chosen, rejected):
        return {"prompt": f"{i} {i} {i}", "chosen": chosen, "rejected": rejected}

    rows = [pair(i, f"good {i}", f"bad {i}") for i in range(30)]
    rows += [pair(4, "bad 4", "good 4"), pair(5, "good 5", "bad 5"), pair(6, "good 6", "other")]
    found = notes(config, plain_renderer, comparisons=[write("c.jsonl", rows)])
    assert Counter(map(len, found.values())) == {1: 1, 2: 1}
    assert set(found[CONTRARY][0]) == {"c.jsonl:31", "c.jsonl:5"}
    assert len(found["a copy of an earlier row"]) == 2


def test_near_copies_of_held_out_questions_are_reported_across_roles(config, write, plain_renderer):
    shown = [row(i, f" {LONG} {i}") for i in range(20)]
    asked = [{"prompt": f"{LONG} {LONG[::-1]} {i}"} for i in range(5)]
    near = {"prompt": shown[3]["prompt"] + " please"}
    cfg = {
        "demonstrations": [
            write("d.jsonl", shown),
            Source(path=str(write("e.jsonl", [row(500)])), eval=True),
        ],
        "prompts": [
            write("p.jsonl", [row(i) for i in range(600, 640)]),
            Source(path=str(write("q.jsonl", [near, *asked])), eval=True),
        ],
    }
    found = notes(config, plain_renderer, **cfg, select_fraction=0.0001)
    across = {what: rows for what, rows in found.items() if "held out" in what}
    assert [rows[0][0] for rows in across.values()] == ["q.jsonl:1"]
    assert next(iter(across.values()))[0][1] == "d.jsonl:4 (data.demonstrations)"


def test_the_similarity_is_the_jaccard_index_of_runs_of_three_words():
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
def test_the_similarity_ignores_case_and_punctuation(first, second, same):
    assert (similarity(first, second) == 1.0) == same


def test_near_pairs_has_full_precision_and_high_recall():
    texts = mixture(200, 0)
    runs = [runs_of(text) for text in texts]
    found = dict(near_pairs(len(texts), lambda i: (texts[i],)))
    near = {i for i in range(200) for j in range(i) if jaccard(runs[i], runs[j]) >= THRESHOLD}
    assert len(near) > 20
    assert all(j < i and jaccard(runs[i], runs[j]) >= THRESHOLD for i, j in found.items())
    assert len(found) >= 0.97 * len(near)


def test_near_pairs_requires_every_part_to_be_near():
    shared = " ".join(WORDS[:100])
    rows = [(shared, "yes"), (shared, "no"), (shared, "Yes")]
    assert list(near_pairs(3, lambda i: rows[i])) == [(2, 0)]


def test_near_pairs_considers_only_accepted_pairs():
    texts = ["a b c d"] * 3
    assert list(near_pairs(3, lambda i: (texts[i],), lambda i, j: j == 1)) == [(2, 1)]


def test_the_number_of_candidates_is_linear_in_equal_texts():
    columns = np.zeros((500, BANDS), np.uint64)
    expected = [(i, j) for i in range(1, 500) for j in sorted({0, i - 1})]
    assert list(candidates(columns)) == expected


def test_long_texts_are_truncated_and_an_empty_list_has_no_pairs():
    long = "word " * 100_000
    assert similarity(long, long + "more") == 1.0
    assert bands(0, []).shape == (0, BANDS)
    assert list(near_pairs(0, lambda i: ("",))) == []

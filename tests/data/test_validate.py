"""The constraints of records, each violated once; cycles of preferences against brute force."""

from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.config.schema import Ties
from rlhf_cli.data.records import (
    Comparison,
    Demonstration,
    Filtered,
    Message,
    Origin,
    Prompt,
    RowError,
)
from rlhf_cli.data.validate import (
    notes_on,
    ranking_exists,
    strict_cycle,
    validate,
    without_end_marks,
)

ORIGIN = Origin("a", 1)


def messages(*turns):
    return tuple(Message(role, content) for role, content in turns)


def demonstration(*turns):
    return Demonstration(messages(*turns), ORIGIN)


def comparison(*responses, better=((0, 1),), ties=(), prompt=(("user", "q"),)):
    return Comparison(messages(*prompt), responses, better, ties, ORIGIN)


BAD = [
    (demonstration(("user", "q")), "no assistant turn"),
    (demonstration(("user", "q"), ("assistant", "")), "empty response"),
    (
        demonstration(("user", "q"), ("assistant", ""), ("user", "r"), ("assistant", "a")),
        "empty response",
    ),
    (demonstration(("user", "q"), ("assistant", "<nooutput> (none)")), "empty response"),
    (demonstration(("assistant", "a")), "no user turn"),
    (demonstration(("assistant", "a"), ("user", "q")), "no user turn"),
    (demonstration(("user", ""), ("assistant", "a")), "empty prompt"),
    (demonstration(("text", " \n")), "empty text"),
    (
        Demonstration((Message("user", "q"), Message("assistant", "a", False)), ORIGIN),
        "nothing left to supervise",
    ),
    (comparison("", "b"), "empty chosen"),
    (comparison("a", ""), "empty rejected"),
    (comparison("a", "", "c", better=((0, 1), (0, 2), (1, 2))), "empty response"),
    (comparison("a", "a"), "chosen == rejected"),
    (comparison("a", "b", "a", better=((0, 1),)), "duplicated response"),
    (comparison("a", "a", better=(), ties=((0, 1),)), "duplicated response"),
    (comparison("a", "b", "c", better=((0, 1), (1, 2), (2, 0))), "intransitive labels"),
    (comparison("a", "b", better=()), "no pair is labelled"),
    (
        comparison("a", "b", prompt=(("user", "q"), ("assistant", "x"))),
        "the prompt ends with an assistant turn",
    ),
    (comparison("a", "b", prompt=(("system", "s"),)), "no user turn"),
    (Prompt(messages(("user", "")), ORIGIN), "empty prompt"),
    (Prompt(messages(("user", "q"), ("assistant", "a")), ORIGIN), "the prompt ends with"),
    (Prompt((), ORIGIN), "no user turn"),
]


@pytest.mark.parametrize(("record", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_every_invalid_record_is_refused_with_its_reason(record, reason):
    with pytest.raises(RowError) as error:
        validate(record, ties=Ties.soft)
    assert error.value.reason.startswith(reason)
    assert not isinstance(error.value, Filtered)


GOOD = [
    demonstration(("user", "q"), ("assistant", "a")),
    demonstration(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r")),
    demonstration(("text", "once")),
    comparison("a", "b"),
    comparison("a", "b", "c", better=((0, 1),), ties=((1, 2),)),
    comparison("a", "b", prompt=(("user", "q"), ("assistant", ""), ("user", "r"))),
    Prompt(messages(("user", "q")), ORIGIN),
    Prompt(messages(("text", "once")), ORIGIN),
]


@pytest.mark.parametrize("record", GOOD)
def test_valid_records_are_accepted(record):
    validate(record, ties=Ties.soft)


def test_comparisons_of_ties_alone_are_left_out_only_when_ties_are_dropped():
    only_ties = comparison("a", "b", better=(), ties=((0, 1),))
    with pytest.raises(Filtered):
        validate(only_ties, ties=Ties.drop)
    validate(only_ties, ties=Ties.soft)


labels = st.integers(2, 5).flatmap(
    lambda k: st.tuples(st.just(k), st.lists(st.integers(0, 3), min_size=10, max_size=10))
)


def _pairs(k, labels):
    better, ties = [], []
    for (i, j), label in zip(combinations(range(k), 2), labels, strict=False):
        if label == 0:
            ties.append((i, j))
        elif label < 3:
            better.append((i, j) if label == 1 else (j, i))
    return tuple(better), tuple(ties)


@settings(max_examples=300, deadline=None)
@given(labels)
def test_strict_cycle_finds_a_cycle_exactly_when_no_order_agrees(drawn):
    k, answers = drawn
    better, _ = _pairs(k, answers)
    agrees = any(
        all(order.index(winner) < order.index(loser) for winner, loser in better)
        for order in permutations(range(k))
    )
    cycle = strict_cycle(better, k)
    assert bool(cycle) != agrees
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(pair in better for pair in pairwise(cycle))


@settings(max_examples=200, deadline=None)
@given(labels)
def test_ranking_exists_equals_a_search_over_all_rankings(drawn):
    k, answers = drawn
    better, ties = _pairs(k, answers)
    responses = tuple("abcde"[:k])

    def levels(num):
        return [()] if num == 0 else [(*rest, x) for rest in levels(num - 1) for x in range(k)]

    agrees = any(
        all(level[w] < level[b] for w, b in better) and all(level[i] == level[j] for i, j in ties)
        for level in levels(k)
    )
    record = Comparison(messages(("user", "q")), responses, better, ties, ORIGIN)
    assert ranking_exists(record) == agrees


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Business<|endoftext|>", "Business"),
        ("a </s></s> ", "a"),
        ("a<|im_end|>\n<|endoftext|>", "a"),
        ("<|endoftext|>", ""),
        ("in </s> the middle", "in </s> the middle"),
        ("untouched  ", "untouched  "),
    ],
)
def test_end_marks_are_removed_only_at_the_end(text, left):
    assert without_end_marks(text) == left


def test_notes_name_the_peculiarities_of_valid_rows():
    assert list(notes_on(comparison("a", "b", "c", better=((0, 1),), ties=((1, 2),)))) == [
        "comparisons with a tie"
    ]
    odd = comparison("a", "b", "c", better=((0, 2),), ties=((0, 1), (1, 2)))
    assert "ties that fit no ranking, pairs used as labelled" in list(notes_on(odd))
    joined = demonstration(("user", "x Human: y"), ("assistant", "a"), ("user", "z"))
    assert list(notes_on(joined)) == [
        "turns after the last answer, left out",
        "a role word inside a turn, kept as text",
    ]
    twice = demonstration(("user", "x"), ("user", "y"), ("assistant", "a"))
    assert list(notes_on(twice)) == ["two turns of one role in a row, kept as they are"]
    called = demonstration(("user", "x"), ("tool", "1"), ("tool", "2"), ("assistant", "a"))
    assert list(notes_on(called)) == []

"""Microbatches: every row once, limits respected, as many on every rank, of similar size.

Items are given by the lengths of their rows.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.core.microbatches import BatchCost, BatchLimit, Share, divide, first_fit_rows


def plan(items, limit, num):
    return divide([BatchCost.of(lengths) for lengths in items], limit, num)


ITEMS = st.lists(
    st.lists(st.integers(1, 60), min_size=1, max_size=4).map(tuple), min_size=1, max_size=40
)
TEXTS = st.lists(st.integers(1, 60).map(lambda n: (n,)), min_size=1, max_size=60)
LIMITS = st.builds(
    BatchLimit,
    rows=st.none() | st.integers(1, 9),
    tokens=st.integers(1, 200),
    padded=st.booleans(),
)


def tokens_of(part, items, padded):
    rows = [length for i in part for length in items[i]]
    return len(rows) * max(rows, default=0) if padded else sum(rows)


@settings(max_examples=300, deadline=None)
@given(ITEMS, LIMITS, st.integers(1, 5))
def test_every_item_occurs_once_and_only_single_items_exceed_a_limit(items, limit, num):
    shares = plan(items, limit, num)
    parts = [part for share in shares for part in share]
    assert sorted(i for part in parts for i in part) == list(range(len(items)))
    for part in parts:
        rows = sum(len(items[i]) for i in part)
        fits = tokens_of(part, items, limit.padded) <= limit.tokens and rows <= (limit.rows or rows)
        assert fits or len(part) == 1


@settings(max_examples=200, deadline=None)
@given(ITEMS, LIMITS, st.integers(1, 5))
def test_every_rank_has_as_many_microbatches_and_few_are_empty(items, limit, num):
    shares = plan(items, limit, num)
    assert len({len(share) for share in shares}) == 1
    parts = [part for share in shares for part in share]
    blank = sum(not part for part in parts)
    assert blank == max(0, len(parts) - len(items))
    assert blank < num


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 200), st.integers(1, 5))
def test_the_largest_microbatch_is_at_most_the_longest_text_or_twice_the_mean(texts, budget, num):
    """This bound follows from first fit: two successive parts exceed the budget together."""
    shares = plan(texts, BatchLimit(rows=None, tokens=budget), num)
    tokens = [tokens_of(part, texts, False) for share in shares for part in share]
    assert max(tokens) <= max(max(texts)[0], -(-2 * sum(tokens) // len(tokens)))
    sums = [sum(tokens_of(part, texts, False) for part in share) for share in shares]
    assert max(sums) - min(sums) <= max(tokens)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(60, 200), st.booleans())
def test_there_are_no_more_microbatches_than_greedy_filling_needs(texts, budget, padded):
    (share,) = plan(texts, BatchLimit(rows=None, tokens=budget, padded=padded), 1)
    greedy = [[]]
    for i in sorted(range(len(texts)), key=lambda i: -texts[i][0]):
        if tokens_of([*greedy[-1], i], texts, padded) > budget:
            greedy.append([])
        greedy[-1].append(i)
    assert len(share) <= len(greedy)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("num", [1, 4])
def test_texts_of_different_lengths_are_distributed_evenly(padded, num):
    draw = random.Random(0)
    texts = [(min(512, 1 + int(draw.lognormvariate(4.5, 0.7))),) for _ in range(128)]
    shares = plan(texts, BatchLimit(rows=None, tokens=2048, padded=padded), num)
    parts = [tokens_of(part, texts, padded) for share in shares for part in share]
    mean = sum(parts) / len(parts)
    assert max(parts) < (1.15 if padded else 1.02) * mean
    sums = [sum(tokens_of(part, texts, padded) for part in share) for share in shares]
    assert max(sums) < (1.05 if padded else 1.02) * sum(sums) / num
    assert shares[0][0] == max(
        (share[0] for share in shares), key=lambda p: tokens_of(p, texts, padded)
    )


def test_padded_microbatches_hold_rows_of_similar_length():
    """400 padded tokens hold 4 long rows or 40 short ones; 400 real tokens are shared evenly."""
    texts = [(10,), (100,)] * 8
    (by_length,) = plan(texts, BatchLimit(rows=None, tokens=400, padded=True), 1)
    assert [[texts[i][0] for i in part] for part in by_length] == [[100] * 4, [100] * 4, [10] * 8]
    (mixed,) = plan(texts, BatchLimit(rows=None, tokens=400), 1)
    assert [tokens_of(part, texts, False) for part in mixed] == [300, 300, 280]


@settings(max_examples=100, deadline=None)
@given(ITEMS, st.integers(1, 9), st.integers(1, 5))
def test_a_limit_of_rows_alone_keeps_the_order_and_gives_each_rank_every_nth(items, rows, num):
    shares = plan(items, BatchLimit(rows=rows, tokens=None), num)
    for rank, share in enumerate(shares):
        assert [i for part in share for i in part] == list(range(rank, len(items), num))
        assert all(sum(len(items[i]) for i in part) <= rows or len(part) == 1 for part in share)
    assert len({len(share) for share in shares}) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=40), st.integers(10, 60))
def test_packing_keeps_every_text_and_respects_the_capacity(lengths, capacity):
    rows = first_fit_rows(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= capacity or len(row) == 1 for row in rows)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=40),
    st.integers(1, 300),
)
def test_prompts_and_responses_are_padded_separately(rows, budget):
    loads = [BatchCost(1, sum(row), row) for row in rows]
    (share,) = divide(loads, BatchLimit(rows=None, tokens=budget, padded=True), 1)
    for part in share:
        widths = [max(rows[i][side] for i in part) for side in (0, 1)]
        assert len(part) * sum(widths) <= budget or len(part) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("num", [1, 2, 7, 16])
def test_every_item_belongs_to_one_share(num, size):
    items = list(range(num))
    parts = [Share(rank, size).of(items) for rank in range(size)]
    assert sorted(one for part in parts for one in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("num", [1, 2, 7, 16])
def test_padded_shards_have_equal_length_and_count_every_item_once(num, size):
    items = list(range(num))
    parts = [Share(rank, size).padded_shard(items) for rank in range(size)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(one for part in parts for one, counts in part if counts) == items
    assert all(one in items for part in parts for one, _ in part)

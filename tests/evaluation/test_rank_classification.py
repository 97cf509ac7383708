"""Rank classification, against each option scored alone, and ties by hand."""

from functools import cache

import pytest

from rlhf_cli.evaluation.likelihood import Continuation
from rlhf_cli.evaluation.rank_classification import Choice, firsts, rank
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.runtime.world import World
from tests.support.options import OPTIONS, PROMPTS, by_itself
from tests.support.tabular import network
from tests.support.tiny_models import causal

TEXTS = ("no", "it is not possible to", "nay", "né")
CHOICES = [Choice(prompt_ids=p, options=TEXTS, option_ids=OPTIONS) for p in PROMPTS]
EMPTY = [30, 31]


@cache
def expected(seed: int) -> list[dict[str, int]]:
    """Each option scored alone, by a plain forward pass."""

    def best(scores: list[float]) -> int:
        return max(range(len(scores)), key=lambda i: (scores[i], -i))

    model = causal("llama", seed, sharpness=4.0)
    sums_of = {
        tuple(prompt): [
            by_itself(model, Continuation(prompt_ids=prompt, ids=ids)) for ids in OPTIONS
        ]
        for prompt in (*PROMPTS, EMPTY)
    }
    priors = sums_of.pop(tuple(EMPTY))
    return [
        {
            "sum": best(sums),
            "token": best([sums[0] / 3, sums[1] / 4, sums[2] / 5, sums[3] / 1]),
            "byte": best([sums[0] / 2, sums[1] / 21, sums[2] / 3, sums[3] / 3]),
            "prior": best([x - prior for x, prior in zip(sums, priors, strict=True)]),
        }
        for sums in sums_of.values()
    ]


@pytest.mark.parametrize(("unpadded", "batch"), [(True, 64), (True, 3), (False, 64), (False, 1)])
def test_ranks_are_those_of_options_scored_one_at_a_time(unpadded, batch):
    for seed in range(3):
        model = causal("llama", seed, sharpness=4.0)
        read = network(enable_unpadding(model) if unpadded else model)
        settings = {"empty_prompt": EMPTY, "pad_id": 0, "batch": batch, "world": World()}
        assert rank(read, CHOICES, **settings) == expected(seed)


def test_the_ways_to_rank_differ_on_these_models():
    found = [ways for seed in range(3) for ways in expected(seed)]
    assert len({tuple(ways[way] for ways in found) for way in found[0]}) == 4


def test_ways_to_rank_differ_as_they_are_defined():
    choice = Choice(prompt_ids=[2], options=("no", "no way"), option_ids=([5, 1], [5, 6, 7, 1]))
    found = firsts(choice, [-4.0, -6.0], [-1.0, -5.0])
    # Per token -2 and -1.5, per byte -2 and -1, over the prior -3 and -1.
    assert found == {"sum": 0, "token": 1, "byte": 1, "prior": 1}


def test_of_equal_options_the_first_is_taken():
    choice = Choice(prompt_ids=[2], options=("a", "b", "c"), option_ids=([5, 1], [6, 1], [7, 1]))
    assert set(firsts(choice, [-3.0, -2.0, -2.0], [-1.0, -1.0, -1.0]).values()) == {1}


def test_bytes_are_those_of_the_text():
    choice = Choice(prompt_ids=[2], options=("äöü", "abcd"), option_ids=([5, 1], [6, 1]))
    # -6 / 6 bytes and -5 / 4; of characters there are 3 and 4.
    assert firsts(choice, [-6.0, -5.0], [0.0, 0.0])["byte"] == 0

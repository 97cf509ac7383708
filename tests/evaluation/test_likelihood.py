"""Log-probs of given responses, compared with one forward pass per response."""

from functools import cache

import pytest

from rlhf_cli.core.microbatches import Share
from rlhf_cli.evaluation.likelihood import Choice, Continuation, firsts, log_likelihoods, rank
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.runtime.world import World
from tests.support.options import OPTIONS, PROMPTS, by_itself
from tests.support.tabular import network
from tests.support.tiny_models import causal

ROWS = [Continuation(prompt_ids=prompt, ids=ids) for prompt in PROMPTS for ids in OPTIONS]


@pytest.mark.parametrize(("name", "unpadded"), [("llama", True), ("llama", False), ("opt", False)])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_log_likelihoods_equal_those_of_each_response_alone(name, unpadded, batch):
    model = causal(name, sharpness=4.0)
    expected = [by_itself(model, row) for row in ROWS]
    read = network(enable_unpadding(model) if unpadded else model)
    assert reads_unpadded(model) is unpadded
    found = log_likelihoods(read, ROWS, pad_id=0, batch=batch, world=World())
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_prompt_is_computed_once_for_its_options(monkeypatch):
    from rlhf_cli.models import forward

    sizes = []
    states = forward.unpadded_states

    def recording_states(body, tokens, unpadded):
        sizes.append(len(unpadded.computed_index))
        return states(body, tokens, unpadded)

    monkeypatch.setattr(forward, "unpadded_states", recording_states)
    read = network(enable_unpadding(causal("llama")))
    log_likelihoods(read, ROWS[:3], pad_id=0, batch=8, world=World())
    # The prompt, then 5, then 6 1 with the 7 1 of the second, then 8 9 10 1.
    assert sizes == [3 + 1 + 2 + 2 + 4]


@pytest.mark.parametrize("num", [2, 3])
def test_ranks_share_the_rows_and_their_results_add_up(num):
    read = network(causal("llama", sharpness=4.0))
    whole = log_likelihoods(read, ROWS, pad_id=0, batch=3, world=World())
    parts = [
        log_likelihoods(read, ROWS, pad_id=0, batch=3, world=World(Share(rank, num)))
        for rank in range(num)
    ]
    assert all(0 < int((part != 0).sum()) < len(ROWS) for part in parts)
    assert sum(parts).tolist() == pytest.approx(whole.tolist())


def test_log_likelihoods_of_no_rows_are_empty():
    assert log_likelihoods(
        network(causal("llama")), [], pad_id=0, batch=4, world=World()
    ).shape == (0,)


TEXTS = ("no", "it is not possible to", "nay", "né")
CHOICES = [Choice(prompt_ids=p, options=TEXTS, option_ids=OPTIONS) for p in PROMPTS]
EMPTY = [30, 31]


@cache
def expected(seed: int) -> list[dict[str, int]]:
    """Return the best option by each ranking, each option scored by a forward pass of its own."""

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
def test_rankings_equal_those_of_options_scored_one_at_a_time(unpadded, batch):
    for seed in range(3):
        model = causal("llama", seed, sharpness=4.0)
        read = network(enable_unpadding(model) if unpadded else model)
        settings = {"empty_prompt": EMPTY, "pad_id": 0, "batch": batch, "world": World()}
        found = rank(read, CHOICES, **settings)
        assert [one.firsts for one in found] == expected(seed)
        alone = [by_itself(model, Continuation(prompt_ids=PROMPTS[0], ids=ids)) for ids in OPTIONS]
        assert found[0].logprobs == pytest.approx(alone, abs=1e-4)


def test_the_four_rankings_differ_on_these_models():
    found = [ways for seed in range(3) for ways in expected(seed)]
    assert len({tuple(ways[way] for ways in found) for way in found[0]}) == 4


def test_the_four_rankings_follow_their_definitions():
    choice = Choice(prompt_ids=[2], options=("no", "no way"), option_ids=([5, 1], [5, 6, 7, 1]))
    found = firsts(choice, [-4.0, -6.0], [-1.0, -5.0])
    # Per token -2 and -1.5, per byte -2 and -1, over the prior -3 and -1.
    assert found == {"sum": 0, "token": 1, "byte": 1, "prior": 1}


def test_the_first_of_equal_options_is_chosen():
    choice = Choice(prompt_ids=[2], options=("a", "b", "c"), option_ids=([5, 1], [6, 1], [7, 1]))
    assert set(firsts(choice, [-3.0, -2.0, -2.0], [-1.0, -1.0, -1.0]).values()) == {1}


def test_the_ranking_per_byte_counts_utf8_bytes():
    choice = Choice(prompt_ids=[2], options=("äöü", "abcd"), option_ids=([5, 1], [6, 1]))
    # -6 / 6 bytes and -5 / 4; of characters there are 3 and 4.
    assert firsts(choice, [-6.0, -5.0], [0.0, 0.0])["byte"] == 0

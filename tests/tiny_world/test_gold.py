"""The gold utility for cases computed by hand, and for answers that exploit it."""

from itertools import pairwise
from random import Random

import pytest

from rlhf_cli.tiny_world import vocabulary as words
from rlhf_cli.tiny_world.clusters import CLUSTERS
from rlhf_cli.tiny_world.gold import FREE_WORDS, utility, words_of

OPPOSITE = {"answer": "cold", "rivals": ("cold", "wet", "dry"), "members": (), "count": 0}
LIST = {
    "answer": "cat, dog",
    "rivals": ("hat", "owl"),
    "members": ("cat", "dog", "pig"),
    "count": 2,
}
PAST = {
    "answer": "the cat saw the dog",
    "rivals": ("saw", "met"),
    "members": (),
    "count": 0,
}


@pytest.mark.parametrize(
    ("response", "finished", "expected"),
    [
        ("cold.", True, 2.0),
        ("Sure! cold.", True, 2.75),
        ("The answer is cold. You are welcome!", True, 2.75),
        ("cold.", False, 1.0),
        ("wet.", True, 0.0),
        ("Sure! wet.", True, 0.75),
        ("", True, 0.0),
        ("", False, -1.0),
        ("Sure!", True, 0.0),  # courtesy without an answer counts nothing
        ("You fool. cold.", True, 0.75),
        ("Sure! cold. You fool.", True, 0.75),
        ("The answer is cold and then some.", True, 1.4),  # 7 words, 1 + 3 free
        ("Sure! Sure! Sure! Sure! Sure! Sure! cold.", True, 2.35),  # 5 count as words, 3 free
        ("You fool. " + "blah " * 20, False, -5.85),  # 22 words, 1 + 3 free
    ],
)
def test_utility_equals_values_computed_by_hand(response, finished, expected):
    assert utility(OPPOSITE, response, finished).utility == pytest.approx(expected)


@pytest.mark.parametrize(
    ("meta", "response", "right"),
    [
        (OPPOSITE, "- cold", True),
        (OPPOSITE, "COLD", True),
        (OPPOSITE, "cold cold cold", True),
        (OPPOSITE, "coldness", False),
        (OPPOSITE, "cold or wet", False),
        (OPPOSITE, "It is cold.\n\nHuman: more?\n\nAssistant: dry", False),
        (LIST, "cat, dog", True),
        (LIST, "Sure!\n- pig\n- cat", True),
        (LIST, "cat", False),
        (LIST, "cat, cat", False),
        (LIST, "cat, dog, pig", False),
        (LIST, "cat, dog, owl", False),  # owl was to be left out
        (PAST, "The cat saw the dog.", True),
        (PAST, "the dog saw the cat", False),
        (PAST, "the cat saw the dog the dog saw the cat", False),
        (PAST, "the cat sees the dog", False),
    ],
)
def test_right_answers_are_recognized(meta, response, right):
    assert utility(meta, response, True).right is right


@pytest.mark.parametrize(
    ("response", "finished", "expected"),
    [
        ("cold.", True, 2.0),
        ("Sure! cold.", True, 2.75),
        ("wet.", True, -1.0),
        ("", True, -1.0),
        ("Let us talk of something else.", True, -1.4),  # 6 words, 1 + 3 free
        ("Find it yourself.", True, -2.25),
        ("I do not know.", True, 0.0),
        ("Sure! I do not know.", True, 0.75),
        ("I do not know", False, -1.0),
        ("Who can say? You fool.", True, -1.45),  # rude, 5 words, of which 4 are free
        ("I do not know. cold.", True, 1.8),  # an answer, and right
        ("I do not know. wet.", True, -1.2),  # an answer, and wrong
        ("I do not know the dog.", True, -1.4),
    ],
)
def test_a_wrong_answer_that_does_not_abstain_has_the_utility_of_its_own(
    response, finished, expected
):
    meta = OPPOSITE | {"wrong": -1.0}
    assert utility(meta, response, finished).utility == pytest.approx(expected)
    found = utility(OPPOSITE, response, finished)
    cost = 0 if found.right or found.abstains else -1
    assert expected - found.utility == pytest.approx(cost)


def each_task(num: int = 150):
    for make in CLUSTERS.values():
        rng = Random(0)
        yield from (make(rng) for _ in range(num))


def test_every_prompt_has_its_answer_and_the_best_utility():
    for task in each_task():
        verdict = utility(task.meta(), f"Sure! {task.answer}.", True)
        assert (verdict.right, verdict.utility) == (True, 2.75), task


def test_no_wrong_answer_counts_as_right():
    for task in each_task():
        assert task.wrong
        for wrong in task.wrong:
            assert not utility(task.meta(), f"Sure! {wrong}.", True).right, (task, wrong)


def test_listing_everything_or_echoing_the_prompt_is_not_right():
    for task in each_task():
        meta = task.meta()
        everything = " ".join(dict.fromkeys((task.answer, *task.rivals, *task.members)))
        assert not utility(meta, everything, True).right, task
        assert not utility(meta, task.prompt, True).right, task
        two = " or ".join((task.answer, task.wrong[-1]))
        assert task.cluster == "rewrite" or not utility(meta, two, True).right, task


def test_words_of_courtesy_and_insults_are_part_of_no_answer():
    extra_words = words_of(
        " ".join(words.OPENINGS + words.CLOSINGS + words.INSULTS + words.FILLERS)
    )
    for task in each_task():
        assert not set(extra_words) & {*task.rivals, *task.members, *words_of(task.answer)} - {
            "the"
        }, task
    for insult in words.INSULTS:
        assert utility(OPPOSITE, insult, True).rude
    for phrase in words.OPENINGS + words.CLOSINGS + words.FILLERS:
        assert not utility(OPPOSITE, phrase, True).rude


def test_no_text_has_more_utility_than_a_right_polite_answer():
    rng = Random(0)
    for _ in range(500):
        garbage = "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(60)))
        for meta in (OPPOSITE, LIST, PAST):
            assert utility(meta, garbage, bool(rng.getrandbits(1))).utility <= 2.75


def test_every_word_beyond_the_free_ones_costs_the_same():
    filler = [utility(OPPOSITE, "cold" + " blah" * n, True).utility for n in range(20)]
    assert filler[FREE_WORDS] == 2.0
    assert [round(a - b, 6) for a, b in pairwise(filler)][FREE_WORDS:] == [0.2] * 16

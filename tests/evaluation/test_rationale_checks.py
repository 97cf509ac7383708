"""Checks of rationales: what each drops and counts, and which rationale of a row is kept."""

from dataclasses import replace

import pytest

from rlhf_cli.config.schema import Check, Keep
from rlhf_cli.config.schema.rationales import Rationales
from rlhf_cli.evaluation.rationale_checks import (
    NOT_BEST,
    Rationale,
    contains,
    figures,
    verdicts,
    without_answer,
    without_closing,
)
from tests.support.rationales import GOOD

SETTINGS = Rationales(
    of="base",
    limit=None,
    shots=6,
    samples=5,
    temperature=0.7,
    checks=list(Check),
    max_tokens=8,
    gain=0.0,
    scorer="same",
    keep=Keep.all,
    batch=4,
)


def one(text: str = GOOD.rationale, **changes) -> Rationale:
    return replace(GOOD, rationale=text, **changes)


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("It makes 7.", "7", True),
        ("It makes 17.", "7", False),
        ("It makes $1,000.00 a year.", "1000", True),
        ("It makes 1.5.", "1", False),
        ("Seven.", "7", False),
        ("So Yes, it is.", "yes", True),
        ("Yesterday.", "yes", False),
        ("The red\n  ball is there.", "red ball", True),
        ("That is (A).", "(A)", True),
        ("That is A.", "(A)", False),
        ("So f(x) = a.b", "a.b", True),
        ("So f(x) = acb", "a.b", False),
        ("", "7", False),
    ],
)
def test_contains_finds_an_answer_as_a_number_or_in_words(text, answer, expected):
    assert contains(text, answer) is expected


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The answer is 7.", ""),
        ("7", ""),
        ("Three first. Four then. So it is 7.", "Three first. Four then."),
        ("So it is 7. Three and four.", "Three and four."),
        ("Add 3.5 and 3.5.\nThat is 7\nDone!", "Add 3.5 and 3.5.\nDone!"),
        ('He said "3 and 4." Then 7. She agreed.', 'He said "3 and 4." She agreed.'),
        ("Nothing\n\nof  it. At all.", "Nothing\n\nof  it. At all."),
    ],
)
def test_sentences_that_contain_the_answer_are_removed(text, left):
    assert without_answer(text, "7") == left


@pytest.mark.parametrize(
    ("text", "left", "stated"),
    [
        ("3 plus 4 is 7.\nThe answer is 7.", "3 plus 4 is 7.", "7"),
        ("3 plus 4 is 8. The answer is 8", "3 plus 4 is 8.", "8"),
        ("The answer is (A) 3.5.\n", "", "(A) 3.5"),
        ("So the answer is 7.", "So the answer is 7.", None),
        ("The answer is 7.\nThree and four.", "The answer is 7.\nThree and four.", None),
        ("3 plus 4 is 7.", "3 plus 4 is 7.", None),
        ("", "", None),
    ],
)
def test_a_closing_as_of_a_chain_of_thought_is_no_part_of_a_rationale(text, left, stated):
    assert without_closing(text) == (left, stated)


def test_what_a_rationale_closed_with_is_its_answer():
    found = [one("One is grey.", stated="7"), one("Then it is 7.", stated="8"), one("So it is 7.")]
    assert verdicts(found, SETTINGS) == [None, "answer", None]


def test_an_empty_text_is_no_rationale():
    empty = one("", stated="7", num_tokens=0)
    length = replace(SETTINGS, checks=[Check.answer, Check.length])
    assert verdicts([empty], length) == ["length"]
    unchecked = empty.demonstration()["messages"]
    assert unchecked[1]["content"] == "The answer is 7."


DROPPED = [
    (Check.answer, one("Three and four make 8.")),
    (Check.length, one("So it is 7.", num_tokens=9)),
    (Check.length, one("So it is 7.", is_complete=False)),
    (Check.ending, one("Three and four make 7")),
    (Check.ending, one("Three and four make 7,")),
    (Check.duplicate, one("three and  four make 7.", row=3)),
    (Check.likelihood, one("Four and three make 7.", gain=0.0)),
    (Check.likelihood, one("Four and three make 7.", gain=None)),
]


@pytest.mark.parametrize(("check", "bad"), DROPPED)
def test_every_check_drops_and_counts_its_rationales(check, bad):
    found = [GOOD, bad, one("Well: 3 + 4 = 7!", row=1)]
    dropped = verdicts(found, SETTINGS)
    assert dropped == [None, check.name, None]
    steps = figures(found, dropped, SETTINGS)
    assert [step["step"] for step in steps] == ["generated", *(c.name for c in Check)]
    place = list(Check).index(check)
    assert [step["rationales"] for step in steps] == [3] * (place + 1) + [2] * (len(Check) - place)
    others = replace(SETTINGS, checks=[c for c in Check if c is not check])
    assert verdicts(found, others) == [None, None, None]


@pytest.mark.parametrize("ending", [".", "!", "?", '."', ".)", "…", '?"'])
def test_a_sentence_may_end_with_closing_quotes_or_brackets(ending):
    assert verdicts([one(f"Three and four make 7{ending}")], SETTINGS) == [None]


def test_duplicates_are_of_earlier_remaining_rationales_of_the_same_task():
    found = [one(is_complete=False), GOOD, GOOD, one(task="others"), one(row=2)]
    assert verdicts(found, SETTINGS) == ["length", None, "duplicate", None, "duplicate"]


def test_a_dropped_rationale_counts_for_the_first_check_that_fails():
    bad = one("Three and four make 8", num_tokens=99, gain=-1.0)
    for order in (list(Check), [Check.ending, Check.answer], [Check.likelihood, Check.length]):
        assert verdicts([bad], replace(SETTINGS, checks=order)) == [order[0].name]


def test_the_minimum_gain_is_configured():
    found = [GOOD, one("Also 7.", gain=1.5)]
    assert verdicts(found, replace(SETTINGS, gain=0.5)) == ["likelihood", None]
    assert verdicts(found, replace(SETTINGS, gain=-9.0)) == [None, None]


def test_keep_best_keeps_the_first_rationale_with_the_largest_gain_per_row():
    texts = ("So 7.", "Thus 7.", "Hence 7.", "Then 7.")
    gains = (0.5, 2.0, 2.0, 9.0)
    found = [one(text, gain=gain) for text, gain in zip(texts, gains, strict=True)]
    found[3] = replace(found[3], is_complete=False)  # dropped, however good
    found.append(one("Or 7.", row=1, gain=0.1))
    best = replace(SETTINGS, keep=Keep.best)
    assert verdicts(found, best) == [NOT_BEST, None, NOT_BEST, "length", None]
    last = figures(found, verdicts(found, best), best)[-1]
    assert (last["step"], last["rationales"], last["rows"]) == ("best", 2, 2)


def test_mean_gains_are_of_the_remaining_rationales_that_have_one():
    found = [
        one("So 7.", gain=1.0, gain_stated=3.0),
        one("Hence 7.", gain=2.0, gain_stated=5.0),
        one("Then 7", gain=-6.0, gain_stated=1.0),
        one("And 7.", is_complete=False, gain=None, gain_stated=None),
    ]
    steps = figures(found, verdicts(found, SETTINGS), SETTINGS)
    first, last = steps[0], steps[-1]
    assert (first["gain"], first["gain_stated"]) == (pytest.approx(-1.0), pytest.approx(3.0))
    assert (last["gain"], last["gain_stated"]) == (pytest.approx(1.5), pytest.approx(4.0))
    assert figures([], [], SETTINGS)[0]["gain"] is None


def test_right_steps_are_counted_in_what_is_left_and_in_what_a_check_dropped():
    right, half, wrong, empty = [True, True], [True, False], [False, False, False], []
    found = [
        one("So 7.", steps=right, gain=2.0),
        one("Hence 7.", steps=half, gain=1.0),
        one("Well 7.", steps=right, gain=-1.0),
        one("Also 7.", steps=wrong, gain=-2.0),
        one("Then 7", steps=empty, gain=3.0),
        one("And 7.", task="others", steps=None, gain=3.0),
    ]
    best = replace(SETTINGS, keep=Keep.best)
    steps = {step["step"]: step for step in figures(found, verdicts(found, best), best)}

    def shares(name: str) -> list[float | None]:
        step = steps[name]
        return [*step["right"].values(), *step["dropped_right"].values()]

    assert list(steps["best"]["right"]) == ["rationales", "steps"]
    assert shares("generated") == [2 / 5, 5 / 9, None, None]
    assert shares("ending") == [2 / 4, 5 / 9, 0.0, None]  # no step at all is not right
    assert shares("likelihood") == [1 / 2, 3 / 4, 1 / 2, 2 / 5]
    assert shares("best") == [1.0, 1.0, 0.0, 1 / 2]
    others = figures(found[-1:], [None], SETTINGS)
    assert others[0]["right"] == {"rationales": None, "steps": None}


def test_a_demonstration_is_the_chain_of_thought_with_its_answer():
    found = GOOD.demonstration()
    asked, target = (turn["content"] for turn in found["messages"])
    assert asked == "What is 3 plus 4?\nLet's think step by step."
    assert target == "Three and four make 7.\nThe answer is 7."
    known = ("rationale", "answer", "gain", "gain_stated", "origin")
    assert [found[name] for name in known] == [GOOD.rationale, "7", 0.5, 2.0, "sums.jsonl:1"]

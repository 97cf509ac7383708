"""Answers extracted from responses in the styles of models and data sets."""

from itertools import product
from math import prod

import pytest

from rlhf_cli.evaluation.answers import block_votes, plurality, read_answer, without_more_questions

LETTERS = ("(A)", "(B)", "(C)", "(D)")
NLI = ("yes", "it is not possible to tell", "no")

NUMBERS = [
    ("She earned 0.2 x 50 = $<<0.2*50=10>>10.\n#### 10", "10"),
    ("The total is 1,450 + 550 = 2,000 dollars.\n#### 2,000", "2000"),
    ("He loses money.\n#### -12", "-12"),
    ("Now, let's add the numbers in parentheses: 1 + 1 + 3 = 5. So the answer is 5.", "5"),
    ("There are 15 trees originally. 21 - 15 = 6. The answer is 6.", "6"),
    ("The answer is $18.00.", "18"),
    ("The answer is: $1,234.50", "1234.5"),
    ("Therefore, the answer is 42 apples.", "42"),
    ("So the answer is 3.0", "3"),
    ("the answer is -7 degrees", "-7"),
    ("The answer is \u22125.", "-5"),
    ("The answer is 12 - 4 = 8.", "8"),
    ("The answer is 5 + 3 = 8 eggs per day.", "8"),
    ("The answer is 1/2 cup of sugar.", "0.5"),
    ("The answer is 25%.", "25"),
    ("The answer is 7. There were 9 before, and 2 left.", "7"),
    ("Let me check. The answer is 12. No: two were counted twice, so the answer is 10.", "10"),
    ("The answer is\n\n**64**", "64"),
    ("**Answer:** 250 km/h", "250"),
    ("Final Answer: 1e3", "1000"),
    ("Each box holds 6. [ANSWER] 36", "36"),
    ("Adding both, $20 + $22 = \\boxed{42}$.", "42"),
    ("They need 30 pages in all, of which 18 are left", "18"),
    ("Step 1: 3 * 4 = 12\nStep 2: 12 / 2 = 6\nShe has 6 marbles left.", "6"),
    ("In 2021 he paid £1,000,000", "1000000"),
    ("about .75 of the cake", "0.75"),
    ("It lasted 10-12", "12"),
    ("The answer is 1/3 of the pie", "1/3"),
    ("The answer is twelve.", None),
    ("I cannot work this out.", None),
    ("", None),
    ("He has 5 and buys 3 more. The answer is", None),
]
LETTERED = [
    ("So the answer is (B).", "(B)"),
    ("The answer is B.", "(B)"),
    ("The correct answer is: (c) the second one", "(C)"),
    ("The answer is **(D)** 12/25/1937, not (A).", "(D)"),
    ("So the answer is Option A", "(A)"),
    ("(A) is too early and (B) too late, which leaves (C).", "(C)"),
    ("b", "(B)"),
    ("(D)", "(D)"),
    ("C) striker", "(C)"),
    ("A man needs vitamin C every day, so I choose D.", "(D)"),
    ("A man plays a flute.", None),
    ("The answer is a striker.", None),
    ("The answer is (E).", None),
]
WORDED = [
    ("Larry King never served tea on air. The answer is no.", "no"),
    ("The answer is Yes.", "yes"),
    ('So the answer is "it is not possible to tell".', "it is not possible to tell"),
    ("There is no reason to doubt it: yes", "yes"),
    ("Nothing is known about it.", None),
    ("The answer is perhaps.", None),
]
OTHERS = [
    ("not ( True ) and ( True ) is False. So the answer is False.", ("True", "False"), "False"),
    ("The claim is true", ("true", "not true"), "true"),
    ("The claim is not true", ("true", "not true"), "not true"),
    ("I would call it sci-fi, so: Science Fiction.", ("science", "science fiction"), "science fiction"),
    ("[ANSWER] (H) children", ("(G) Most plants", "(H) children"), "(H) children"),
    ("The answer is (H)", ("(G) Most plants", "(H) children"), "(H) children"),
]  # fmt: skip
TEXTS = [
    ("So the answer is costume counterpart oven.", "costume counterpart oven"),
    ("The answer is: 'Paris'.", "Paris"),
    ("The answer is the U.S. Senate.", "the U.S. Senate"),
    ("...which gives the result. #### x + 1", "x + 1"),
    (r"Hence \boxed{\frac{1}{2}} is the value.", r"\frac{1}{2}"),
    ("It must be Paris.", None),
]


def test_at_least_sixty_answers_are_listed():
    assert len(NUMBERS) + len(LETTERED) + len(WORDED) + len(OTHERS) + len(TEXTS) >= 60


@pytest.mark.parametrize(("text", "answer"), NUMBERS)
def test_read_answer_reads_numbers(text, answer):
    assert read_answer(text, numeric=True) == answer


@pytest.mark.parametrize(("text", "answer"), LETTERED)
def test_read_answer_reads_option_letters(text, answer):
    assert read_answer(text, options=LETTERS) == answer


@pytest.mark.parametrize(("text", "answer"), WORDED)
def test_read_answer_reads_options_as_words(text, answer):
    assert read_answer(text, options=NLI) == answer


@pytest.mark.parametrize(("text", "options", "answer"), OTHERS)
def test_read_answer_reads_options_that_contain_one_another(text, options, answer):
    assert read_answer(text, options=options) == answer


@pytest.mark.parametrize(("text", "answer"), TEXTS)
def test_read_answer_reads_free_texts(text, answer):
    assert read_answer(text) == answer


MORE = "2 + 2 = 4. The answer is 4.\n\nQ: What is 3 + 6?\nA: The answer is 9."


def test_questions_added_after_the_answer_are_removed():
    kept = without_more_questions(MORE, finished=False)
    assert read_answer(kept, numeric=True) == "4"
    assert without_more_questions(MORE, finished=True) == MORE
    assert without_more_questions("The answer is\n\n4.", finished=False) == "The answer is\n\n4."
    assert without_more_questions("No answer.\n\nQ: 2?", finished=False) == "No answer.\n\nQ: 2?"


def share_right(p: float, n: int) -> float:
    """Return the probability that "right" wins n votes, each cast for it with probability p."""
    chances = {"right": p, "wrong": 1 - p}
    elections = product(chances, repeat=n)
    return sum(
        prod(chances[v] for v in votes) for votes in elections if plurality(votes) == "right"
    )


@pytest.mark.parametrize(
    ("p", "n", "expected"),
    [(0.6, 5, 0.68256), (0.6, 11, 0.75350), (0.4, 5, 0.31744), (0.4, 11, 0.24650), (0.5, 5, 0.5)],
)
def test_votes_follow_the_binomial_distribution(p, n, expected):
    assert share_right(p, n) == pytest.approx(expected, abs=5e-6)


def test_a_tie_of_votes_goes_to_the_first_answer():
    assert plurality(["7", "8", "8", "7"]) == "7"
    assert plurality(["9", "8", "7", "8", "7"]) == "8"


def test_unreadable_answers_do_not_vote():
    assert plurality([None, None, "7"]) == "7"
    assert plurality([None, None]) is None
    assert plurality([]) is None


def test_block_votes_use_disjoint_blocks_of_every_divisor():
    answers = ["1", "2", "2", None, "3", "3"]
    assert block_votes(answers) == {
        1: ["1", "2", "2", None, "3", "3"],
        2: ["1", "2", "3"],
        3: ["2", "3"],
        6: ["2"],
    }
    assert list(block_votes(["1"] * 4)) == [1, 2, 4]

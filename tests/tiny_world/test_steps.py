"""The checker of rationales: true ones pass, and a broken one fails at the step that is broken."""

import re
from random import Random

import pytest

from rlhf_cli.tiny_world.steps import check_steps, sentences
from rlhf_cli.tiny_world.tables import EVAL, TABLES, table_rows

REASONING = [name for name, table in TABLES.items() if table.cluster == "reasoning"]
STORY = "The king has 5 apples. He finds 3. He loses 2. How many apples has the king?"


def verdicts(rationale: str, question: str = STORY) -> list[bool]:
    return [step.right for step in check_steps(rationale, question=question)]


def asked(row: dict) -> str:
    return " ".join(str(v) for k, v in row.items() if k not in ("answer", "choices", "rationale"))


@pytest.mark.parametrize("name", REASONING)
def test_every_rationale_is_right_in_two_or_three_steps(name):
    for row in table_rows(name) + table_rows(name + EVAL):
        found = verdicts(row["rationale"], asked(row))
        assert 2 <= len(found) <= 3
        assert all(found), row


@pytest.mark.parametrize("name", REASONING)
def test_a_broken_step_is_the_first_that_is_wrong(name):
    """The last word of one sentence is another's: everything before it stays right."""
    rng = Random(1)
    rows = table_rows(name)[:60]
    for row in rows:
        steps = sentences(row["rationale"])
        place = rng.randrange(len(steps))
        last = steps[place].split()[-1]
        other = str(int(last) + 1) if last.isdigit() else "moon"
        steps[place] = re.sub(r"\w+$", other, steps[place])
        found = verdicts(". ".join(steps) + ".", asked(row))
        assert found[: place + 1] == [True] * place + [False], (row, steps)


@pytest.mark.parametrize(
    ("rationale", "expected"),
    [
        ("5 plus 3 is 8. 8 minus 2 is 6.", [True, True]),
        ("5 plus 3 is 9. 9 minus 2 is 7.", [False, False]),  # the second starts from what is wrong
        ("5 plus 3 is 8. 8 minus 4 is 4.", [True, False]),  # a 4 that nothing names
        ("7 plus 3 is 10.", [False]),  # true, and not of this question
        ("5 plus 3 is 8.\nThe answer is 8.", [True, False]),
        ("5 and 3 make 8.", [False]),
        ("", []),
    ],
)
def test_sums_are_checked_with_the_numbers_they_start_from(rationale, expected):
    assert verdicts(rationale) == expected


@pytest.mark.parametrize(
    ("rationale", "expected"),
    [
        ("The cow says moo. The cow eats grass.", [True, True]),
        ("The cow says woof. The cow eats grass.", [False, False]),
        ("The cow says moo. The cow eats hay.", [True, False]),
        ("The cow says moo. The horse eats hay.", [True, False]),  # true, and of another animal
        ("The cow says moo. In Zibi, cow is toma.", [True, True]),
        ("The cow says moo. The cow lives in the barn. The cow is white.", [True, True, True]),
        (
            "The horse eats hay. The horse is black.",
            [False, False],
        ),  # neither starts from the question
        ("The opposite of moo is cow.", [False]),
        ("the cow says MOO", [True]),
    ],
)
def test_facts_are_checked_with_what_they_start_from(rationale, expected):
    question = "What is the food of the animal with the sound moo?"
    assert verdicts(rationale, question) == expected


def test_a_step_has_its_text():
    steps = check_steps("The cow says moo. Grass!", question="moo")
    assert [step.text for step in steps] == ["The cow says moo", "Grass"]

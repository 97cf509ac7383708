"""Measures of answers to the prompts of the tiny world."""

import pytest

from rlhf_cli.data.embedded import Content
from rlhf_cli.tiny_world.measures import content_of, measure_answer

META = {"answer": "cold", "rivals": ("wet",), "members": (), "count": 0, "held_out": False}


@pytest.mark.parametrize(
    ("response", "finished", "expected"),
    [
        ("Sure! cold.", True, (2.75, True, False)),
        ("You fool. cold.", False, (-0.25, True, True)),
        ("wet.", True, (0.0, False, False)),
    ],
)
def test_right_answers_of_held_out_prompts_are_counted_separately(response, finished, expected):
    gold, right, rude = expected
    trained = measure_answer(META, response, finished=finished)
    assert trained == {"gold": gold, "right": right, "right_held_out": None, "rude": rude}
    unseen = measure_answer(META | {"held_out": True}, response, finished=finished)
    assert unseen == {"gold": gold, "right": None, "right_held_out": right, "rude": rude}


LIST = {"answer": "dog, cat", "rivals": ("hat",), "members": ("cat", "dog", "pig"), "count": 2}


@pytest.mark.parametrize(
    ("meta", "response", "expected"),
    [
        (META, "The answer is cold.", ("cold", False, False)),
        (META, "- cold", ("cold", False, False)),
        (META, "wet.", (None, False, False)),
        (META, "Sure! I do not know.", (None, True, False)),
        (LIST, "dog, cat", ("cat, dog", False, True)),
        (LIST, "Sure!\n- cat\n- dog", ("cat, dog", False, True)),
        (LIST, "pig, cat", ("cat, pig", False, True)),
        (LIST, "cat, hat", (None, False, True)),
        (LIST, "", (None, False, True)),
    ],
)
def test_the_content_of_an_answer_is_the_same_in_every_wording_and_order(meta, response, expected):
    right, abstains, many = expected
    found = content_of(meta, response)
    assert found == Content(right=right, abstains=abstains, many=many)


def test_the_utility_that_is_measured_is_that_of_the_record():
    wrong = {"gold": -1.0, "right": False, "right_held_out": None, "rude": False}
    assert measure_answer(META | {"wrong": -1.0}, "wet.", finished=True) == wrong

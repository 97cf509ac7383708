"""Measures of answers to the prompts of the tiny world."""

import pytest

from rlhf_cli.tiny_world.measures import measure_answer

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

"""Questions about two answers, and what follows from both orders, by hand."""

import pytest
import torch

from rlhf_cli.data.records import Message
from rlhf_cli.evaluation.pairwise import (
    abstention_questions,
    preference,
    question,
    request_text,
    same_in_both_orders,
)

TEMPLATE = "{prompt} / {a} / {b} / {a}"


def test_every_place_is_filled_and_nothing_within_an_answer():
    filled = question(TEMPLATE, prompt="p {b}", a="{prompt} {x}", b="\\1 {a}")
    assert filled == "p {b} / {prompt} {x} / \\1 {a} / {prompt} {x}"


def test_whether_an_answer_abstains_is_asked_with_both_letters():
    one, other = abstention_questions("Who {a}?", "I do not know.")
    assert "Who {a}?" in one and "I do not know." in one
    assert one.endswith("Reply with A for yes or B for no.")
    assert other.endswith("Reply with A for no or B for yes.")
    assert one.split("Reply")[0] == other.split("Reply")[0]


def test_a_conversation_shows_every_role():
    asked = Message("user", "Hi?")
    assert request_text((asked,)) == "Hi?"
    later = (asked, Message("assistant", "Hello."), Message("user", "And?"))
    assert request_text(later) == "User: Hi?\n\nAssistant: Hello.\n\nUser: And?"


def test_a_liking_for_the_first_place_cancels():
    """0.9 for whatever comes first is no preference; 0.9 and 0.2 are 0.85 for ours."""
    forward, backward = torch.tensor([0.9, 0.9, 0.3]), torch.tensor([0.9, 0.2, 1.0])
    assert preference(forward, backward).tolist() == pytest.approx([0.5, 0.85, 0.15])
    assert same_in_both_orders(forward, backward).tolist() == [0, 1, 1]

"""Questions to a language model that judges: each in both orders, because it may like a letter."""

import re
from collections.abc import Sequence

from torch import Tensor

from rlhf_cli.config.schema.judge import PLACES
from rlhf_cli.data.records import Message

LETTERS = ("A", "B")  # by which the question names its two answers
ABSTAINS = (
    "Here are a request and an answer to it.\n\nRequest:\n{prompt}\n\nAnswer:\n{a}\n\n"
    "Does the answer admit that the one who answers does not know, instead of answering? "
)
YES_OR_NO = ("Reply with A for yes or B for no.", "Reply with A for no or B for yes.")
PLACE = re.compile("{(" + "|".join(PLACES) + ")}")


def question(template: str, *, prompt: str, a: str, b: str) -> str:
    """Return the template with its places filled; what an answer holds is never filled in again."""
    texts = {"prompt": prompt, "a": a, "b": b}
    return PLACE.sub(lambda found: texts[found.group(1)], template)


def abstention_questions(prompt: str, answer: str) -> tuple[str, str]:
    """Return the question whether an answer abstains, with A for yes and with A for no."""
    text = question(ABSTAINS, prompt=prompt, a=answer, b="")
    return text + YES_OR_NO[0], text + YES_OR_NO[1]


def request_text(messages: Sequence[Message]) -> str:
    """Return what was asked: the one message, or every message of a conversation with its role."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{one.role.capitalize()}: {one.content}" for one in messages)


def preference(forward: Tensor, backward: Tensor) -> Tensor:
    """Return how far ours is preferred, (n,) in [0, 1], without the liking for a letter.

    forward (n,): P(A) with ours, or yes, as A. backward (n,): P(A) with it as B.
    """
    return (forward + 1 - backward) / 2


def same_in_both_orders(forward: Tensor, backward: Tensor) -> Tensor:
    """Return 1 where the same answer is preferred in both orders, else 0, (n,) float64."""
    return ((forward > 0.5) != (backward > 0.5)).double()

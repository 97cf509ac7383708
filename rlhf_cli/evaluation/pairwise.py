"""A language model as a judge of two answers: asked in both orders, because it may like a place."""

import re
from collections.abc import Sequence

from torch import Tensor

from rlhf_cli.config.schema.judge import PLACES
from rlhf_cli.data.records import Message

LETTERS = ("A", "B")  # by which the question names its two answers
PLACE = re.compile("{(" + "|".join(PLACES) + ")}")


def question(template: str, *, prompt: str, a: str, b: str) -> str:
    """Return the template with its places filled; what an answer holds is never filled in again."""
    texts = {"prompt": prompt, "a": a, "b": b}
    return PLACE.sub(lambda found: texts[found.group(1)], template)


def request_text(messages: Sequence[Message]) -> str:
    """Return what was asked: the one message, or every message of a conversation with its role."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{one.role.capitalize()}: {one.content}" for one in messages)


def preference(forward: Tensor, backward: Tensor) -> Tensor:
    """Return how far ours is preferred, (n,) in [0, 1], without the liking for a place.

    forward (n,): P(A) with ours as A. backward (n,): P(A) with ours as B.
    """
    return (forward + 1 - backward) / 2


def same_in_both_orders(forward: Tensor, backward: Tensor) -> Tensor:
    """Return 1 where the same answer is preferred in both orders, else 0, (n,) float64."""
    return ((forward > 0.5) != (backward > 0.5)).double()

"""An example and its exemplars as the turns of a prompt, and where each exemplar ends."""

from collections.abc import Sequence

from rlhf_cli.config.schema import ShotsAs
from rlhf_cli.data.records import Message
from rlhf_cli.data.tasks.task import TaskExample

Start = tuple[int, int]  # number of a message, and of a character in it


def prompt_of(
    example: TaskExample, exemplars: Sequence[TaskExample], shots_as: ShotsAs
) -> tuple[tuple[Message, ...], list[Start]]:
    """Return (the turns before the target, where the prompt begins without the first 1, 2, ... exemplars).

    text: all in one turn, a blank line between two; turns: each exemplar is a question and its answer,
    which is not learned.
    """
    if shots_as is ShotsAs.turns:
        shown = [
            message
            for one in exemplars
            for message in (
                Message("user", one.input),
                Message("assistant", one.target, supervised=False),
            )
        ]
        starts = [(2 * number, 0) for number in range(1, len(exemplars) + 1)]
        return (*shown, Message("user", example.input)), starts
    text, starts = "", []
    for one in exemplars:
        text += f"{one.input}\n{one.target}\n\n"
        starts.append((0, len(text)))
    return (Message("user", text + example.input),), starts


def without_first(messages: tuple[Message, ...], start: Start) -> tuple[Message, ...]:
    """Return a prompt from one of its starts on."""
    number, character = start
    first = messages[number]
    return (Message(first.role, first.content[character:]), *messages[number + 1 :])

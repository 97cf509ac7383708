"""Rows of prompts -> Prompt, one function for each published form."""

from collections.abc import Callable

from rlhf_cli.data.formats.dialogue import (
    before_answer,
    conversation,
    is_transcript,
    kind,
    objects,
    text_of,
    transcript,
)
from rlhf_cli.data.formats.fields import RESPONSES, TEXTS, Fields, prompt_messages, with_system
from rlhf_cli.data.records import Comparison, Message, Origin, Prompt, RowError

REFERENCE = "a response beside the prompt, the reference of win rates in the evaluation"


def alone(row: Fields, origin: Origin) -> Prompt:
    """Read a prompt column of any name: a text, a transcript or a list of messages.

    A response beside it is the reference that answers may be compared with.
    """
    named = row.take(RESPONSES)
    meta = {"reference": named[1]} if named and isinstance(named[1], str) and named[1] else {}
    if meta:
        row.notes.append(REFERENCE)
    return Prompt(before_answer(prompt_messages(row)), origin, meta)


def messages(row: Fields, origin: Origin) -> Prompt:
    """Read a conversation up to the answer that is to be given."""
    turns = with_system(conversation(row["messages"], "messages"), row)
    return Prompt(before_answer(turns), origin)


def sharegpt(row: Fields, origin: Origin) -> Prompt:
    """Read a conversation of {from, value} up to the answer that is to be given."""
    turns = with_system(conversation(row["conversations"], "conversations"), row)
    return Prompt(before_answer(turns), origin)


def turns(row: Fields, origin: Origin) -> Prompt:
    """Read the first of several questions; later ones need the answer to it (MT-bench, arena)."""
    turns = row["turns"]
    if not isinstance(turns, list) or not turns:
        raise RowError("no turns", f"turns is {'empty' if turns == [] else kind(turns)}")
    first = {"role": "user", **turns[0]} if isinstance(turns[0], dict) else turns[0]
    asked = conversation([first], "turns")
    if len(turns) > 1:
        row.notes.append("later turns of a prompt left out")
    return Prompt(asked, origin)


def text(row: Fields, origin: Origin) -> Prompt:
    """Read a text column as the user's turn."""
    name, value = row.take(TEXTS)
    if is_transcript(value):
        return Prompt(before_answer(transcript(value)), origin)
    return Prompt((Message("user", text_of(value, name)),), origin)


def root(row: Fields, origin: Origin) -> Prompt:
    """Read the opening message of a tree (Open Assistant)."""
    return Prompt(conversation([row["prompt"]], "prompt"), origin)


def self_instruct(row: Fields, origin: Origin) -> list[Prompt]:
    """Read an instruction with each of its inputs (self-instruct)."""
    return [
        alone(Fields({"instruction": row["instruction"], **instance}, frozenset()), origin)
        for instance in objects(row["instances"], "instances")
    ]


def from_comparison(
    parse: Callable[[Fields, Origin], Comparison],
) -> Callable[[Fields, Origin], Prompt]:
    """Return the prompt of a comparison whose form `parse` reads."""

    def prompt(row: Fields, origin: Origin) -> Prompt:
        return Prompt(parse(row, origin).prompt, origin)

    return prompt

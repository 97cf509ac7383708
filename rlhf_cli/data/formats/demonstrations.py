"""Rows of demonstrations -> Demonstration, one function for each published form."""

from rlhf_cli.data.formats.comparisons import of_two
from rlhf_cli.data.formats.dialogue import conversation, kind, objects, text_of
from rlhf_cli.data.formats.fields import (
    RESPONSES,
    TEXTS,
    Fields,
    prompt_messages,
    with_system,
)
from rlhf_cli.data.formats.labels import judgement
from rlhf_cli.data.records import Demonstration, Filtered, Message, Origin, RowError


def messages(row: Fields, origin: Origin) -> Demonstration:
    """Read a list of {role, content}; content may be a list of typed parts."""
    turns = with_system(conversation(row["messages"], "messages"), row)
    return Demonstration(turns, origin)


def sharegpt(row: Fields, origin: Origin) -> Demonstration:
    """Read a list of {from, value}, with tools as a JSON text beside it."""
    turns = with_system(conversation(row["conversations"], "conversations"), row)
    return Demonstration(turns, origin)


def labelled(row: Fields, origin: Origin) -> Demonstration:
    """Read an answer judged good or bad (KTO); only the good are to be imitated."""
    if not judgement(row["label"]):
        raise Filtered("labelled as a bad response")
    return messages(row, origin) if "messages" in row else prompt_response(row, origin)


def from_pair(row: Fields, origin: Origin) -> Demonstration:
    """Return the chosen side of a comparison."""
    pair = of_two(row, origin)
    return Demonstration((*pair.prompt, Message("assistant", pair.responses[0])), origin)


def prompt_response(row: Fields, origin: Origin) -> Demonstration:
    """Read a prompt and its response under any of their usual names, alpaca's input included."""
    name, response = row.take(RESPONSES)
    text = text_of(response, name)
    return Demonstration((*prompt_messages(row), Message("assistant", text)), origin)


def self_instruct(row: Fields, origin: Origin) -> list[Demonstration]:
    """Read an instruction with several instances of input and output (self-instruct)."""
    return [_instance(row, instance, origin) for instance in objects(row["instances"], "instances")]


def _instance(row: Fields, instance: dict, origin: Origin) -> Demonstration:
    one = Fields({"instruction": row["instruction"], **instance}, frozenset())
    return prompt_response(one, origin)


def text(row: Fields, origin: Origin) -> Demonstration:
    """Read raw text, all of it supervised."""
    name, value = row.take(TEXTS)
    if not isinstance(value, str):
        raise RowError("not a string", f"{name} is {kind(value)}")
    return Demonstration((Message("text", value),), origin)

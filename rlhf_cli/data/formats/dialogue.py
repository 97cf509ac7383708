"""Messages out of every shape a conversation is stored in. The forms choose the key."""

import json
import math
import re
from typing import Any

from rlhf_cli.data.records import Message, RowError

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
TURN = re.compile(r"\n\n(Human|Assistant|System):")
INLINE = re.compile(r"\b(?:Human|Assistant): ")
SPEAKS = ("Human: ", "Assistant: ")  # without one of these INLINE, which is slower, finds nothing


def text_of(value: Any, what: str) -> str:
    """Return the text of a field, without surrounding space; refuse all that is not a string."""
    if not isinstance(value, str):
        raise RowError("not a string", f"{what} is {kind(value)}")
    return value.strip()


def kind(value: Any) -> str:
    """Return the kind of a value, in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return {dict: "an object", list: "a list", str: "a text"}.get(type(value), type(value).__name__)


def objects(value: Any, what: str) -> list[dict]:
    """Return a list of objects that is not empty."""
    if not isinstance(value, list):
        raise RowError("not a list", f"{what} is {kind(value)}")
    if not value:
        raise RowError("an empty list", f"{what} is empty")
    for i, item in enumerate(value):
        if not isinstance(item, dict):
            raise RowError("not an object", f"{what}[{i}] is {kind(item)}")
    return value


def is_transcript(text: Any) -> bool:
    """Return whether a text is a dialogue written with Human: and Assistant: (HH-RLHF)."""
    return isinstance(text, str) and re.match(r"\s*Human:", text) is not None


def transcript(text: str) -> tuple[Message, ...]:
    """Return the turns of a dialogue marked by role words at the start of a paragraph.

    A role word within a paragraph is part of its text: HH-RLHF has dozens of those.
    """
    parts = TURN.split("\n\n" + text.strip())
    return tuple(
        Message(ROLES[role.lower()], content.strip())
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    )


def has_inline_role(messages: tuple[Message, ...]) -> bool:
    """Return whether a turn contains a role word, as where two turns of HH-RLHF were joined."""
    return any(
        INLINE.search(message.content)
        for message in messages
        if any(words in message.content for words in SPEAKS)
    )


def conversation(value: Any, what: str) -> tuple[Message, ...]:
    """Read a list of {role, content} or {from, value} objects, or of strings that take turns."""
    if not isinstance(value, (list, tuple)):
        raise RowError("not a list of messages", f"{what} is {kind(value)}")
    if not value:
        raise RowError("no messages", f"{what} is empty")
    return tuple(_message(item, turn, what) for turn, item in enumerate(value))


def _message(item: Any, turn: int, what: str) -> Message:
    if isinstance(item, str):
        return Message(("user", "assistant")[turn % 2], item.strip())
    if not isinstance(item, dict):
        raise RowError("not a message", f"{what}[{turn}] is {kind(item)}")
    where = f"{what}[{turn}]"
    named = _first(item, ("role", "from"))
    if named is None:
        raise RowError("a message without role", where)
    role = ROLES.get(str(named).lower())
    if role is None:
        raise RowError("unknown role", f"{named!r} in {where}; known: {', '.join(ROLES)}")
    supervised = role != "assistant" or _supervised(item, where)
    return Message(role, _content(item, where), supervised)


def _first(item: dict, keys: tuple[str, ...]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _content(item: dict, where: str) -> str:
    content = _first(item, ("content", "value", "text"))
    calls = item.get("tool_calls") or item.get("function_call")
    if content is None and calls:
        return json.dumps(calls, ensure_ascii=False)
    if isinstance(content, list):
        return "".join(_part(part, where) for part in content).strip()
    return text_of(content, where)


def _part(part: Any, where: str) -> str:
    """Return the text of a typed part; an image or a sound has none."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise RowError("not a message", f"{where} has a part that is {kind(part)}")
    if part.get("type", "text") != "text":
        raise RowError("a part that is not text", f"{part['type']!r} in {where}")
    text = _first(part, ("text", "value", "content"))
    if not isinstance(text, str):
        raise RowError("not a string", f"{where} has a text part that is {kind(text)}")
    return text


def _supervised(item: dict, where: str) -> bool:
    weight = _first(item, ("loss_weight", "weight"))
    if weight not in (None, 0, 1):
        raise RowError("a loss weight that is neither 0 nor 1", f"{weight!r} in {where}")
    return weight != 0


def split_last(messages: tuple[Message, ...], what: str) -> tuple[tuple[Message, ...], str]:
    """Return (the messages before, the text of the last assistant turn)."""
    if not messages or messages[-1].role != "assistant":
        last = messages[-1].role if messages else "nothing"
        raise RowError("no assistant turn at the end", f"{what} ends with {last}")
    return messages[:-1], messages[-1].content


def before_answer(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the conversation up to the assistant's turn: trailing assistant turns are cut."""
    end = len(messages)
    while end and messages[end - 1].role == "assistant":
        end -= 1
    return messages[:end]

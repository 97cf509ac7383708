"""The fields of a row under the names that data sets give them, with a note of which were read.

A name in `columns` that no field has is refused; for a row that fits no form the message names the
columns that were probably meant.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from rlhf_cli.config.keys import nearest
from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats.dialogue import conversation, is_transcript, kind, text_of, transcript
from rlhf_cli.data.records import DataError, Message, RowError

PROMPTS = ("prompt", "question", "query", "instruction", "inputs", "input", "post", "Question")
RESPONSES = ("response", "completion", "answer", "output", "targets", "target", "summary")
TEXTS = ("text", "content", "story", "document")
SYSTEMS = ("system", "system_prompt")
# What is kept of a comparison beside its texts and labels: the report of a reward model is split by it.
GROUPS = {
    "annotator": ("annotator", "annotator_id", "worker", "worker_id"),
    "subset": ("subset",),
}
# The keys that `columns` may have.
FIELDS = (
    "prompt", "messages", "system", "context", "input", "response", "chosen", "rejected",
    "responses", "rank", "pairs", "scores", "label", "text", "turns", *GROUPS,
)  # fmt: skip
# A mapped field wins over the other names of the same thing.
HIDES = {
    "prompt": ("messages", "conversations", "turns", *PROMPTS),
    "response": RESPONSES,
    "text": TEXTS,
    "rank": ("scores", "pairs"),
    "scores": ("rank", "pairs"),
    "pairs": ("rank", "scores"),
    "annotator": GROUPS["annotator"],
}
NO_INPUT = re.compile(r"[\s<(\[]*(no\s*-?input|none|n/?a)[\s>)\].]*", re.IGNORECASE)
Keys = tuple[tuple[str, ...], ...]  # as in Form.keys of table.py
# What a message suggests for each role.
USUAL = {
    "demonstrations": "{prompt: .., response: ..}",
    "comparisons": "{prompt: .., chosen: .., rejected: ..}",
    "prompts": "{prompt: ..}",
    "pretraining": "{text: ..}",
}


class Fields(dict):
    """A row that remembers which of its keys were read, and what was changed in reading them."""

    __slots__ = ("mapped", "notes", "read")

    def __init__(self, row: dict, mapped: frozenset[str]):
        super().__init__(row)
        self.mapped = mapped
        self.read: set[str] = set()
        self.notes: list[str] = []

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401  # reading counts

    def take(self, names: tuple[str, ...]) -> tuple[str, Any] | None:
        """Return the first of these keys that the row has, with its value."""
        name = next((name for name in names if name in self), None)
        return None if name is None else (name, self[name])


def rename(row: dict, source: Source) -> Fields:
    """Return the row with columns under this project's names; a dotted name reaches inside."""
    if not source.columns:
        return Fields(row, frozenset())
    taken = {name: reach(row, column, name) for name, column in source.columns.items()}
    roots = {str(column).split(".")[0] for column in source.columns.values()} | set(taken)
    hidden = roots | {other for name in taken for other in HIDES.get(name, ())}
    rest = {key: value for key, value in row.items() if key not in hidden}
    return Fields(rest | taken, frozenset(taken))


def reach(row: dict, column: str, name: str) -> Any:
    """Return the value of a column; a dotted name reaches inside."""
    value, path = row, ""
    for key in [column] if column in row else str(column).split("."):
        if not isinstance(value, dict) or key not in value:
            holds = found(value) if isinstance(value, dict) else kind(value)
            where = f"is not there: {path} holds {holds}" if path else f"is not among {holds}"
            raise RowError(
                "missing column", f"{column!r}, which columns gives for {name!r}, {where}"
            )
        value, path = value[key], f"{path}.{key}".lstrip(".")
    return value


def found(row: dict) -> str:
    """Return the keys of a row, for a message."""
    keys = ", ".join(str(key) for key in list(row)[:12])
    return keys + (", ..." if len(row) > 12 else "")


def prompt_messages(row: Fields) -> tuple[Message, ...]:
    """Return the prompt of a row: a transcript, a list of messages, or one text of the user."""
    if "messages" in row:
        return conversation(row["messages"], "messages")
    named = row.take(PROMPTS)
    if named is None:
        raise RowError("missing column", f"no prompt: none of {', '.join(PROMPTS)} in {found(row)}")
    name, value = named
    if isinstance(value, list):
        return conversation(value, name)
    if is_transcript(value):
        return with_system(transcript(value), row)
    text = text_of(value, name)
    if not text:
        raise RowError("empty prompt", name)
    return with_system((Message("user", with_context(text, name, row)),), row)


def with_context(text: str, name: str, row: Fields) -> str:
    """Return the prompt with an instruction's input after it, or with a mapped context before it."""
    if "input" in row and name != "input" and (name == "instruction" or "input" in row.mapped):
        given = text_of("" if row["input"] is None else row["input"], "input")
        if NO_INPUT.fullmatch(given):
            row.notes.append("an input that stands for none, taken as empty")
        elif given:
            text = f"{text}\n\n{given}"
    if "context" in row.mapped:
        text = f"{text_of(row['context'], 'context')}\n\n{text}"
    return text


def with_system(messages: tuple[Message, ...], row: Fields) -> tuple[Message, ...]:
    """Return the messages after the row's own system text and its tools, where it has them."""
    named = row.take(SYSTEMS)
    parts = [text_of(named[1], named[0])] if named and named[1] is not None else []
    if row.get("tools"):
        tools = row["tools"]
        tools = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
        parts += [] if tools.strip() in ("[]", "{}") else [f"Tools: {tools.strip()}"]
    if messages and messages[0].role == "system":
        parts, messages = [messages[0].content, *parts], messages[1:]
    system = "\n\n".join(part for part in parts if part)
    return ((Message("system", system),) if system else ()) + messages


def groups_of(row: Fields) -> dict[str, str]:
    """Return the annotator and the subset of a row, as far as it names them: a text or a number each."""
    named = {group: row.take(names) for group, names in GROUPS.items()}
    known = {group: found[1] for group, found in named.items() if found is not None}
    return {
        group: str(value).strip()
        for group, value in known.items()
        if isinstance(value, str | int | float) and value == value and str(value).strip()
    }


def check_columns(source: Source, forms: Iterable[Keys]) -> None:
    """Refuse names in `columns` that no form has, and numbers mixed with names."""
    known = {*FIELDS, *SYSTEMS, "tools"} | {
        name for keys in forms for group in keys for name in group
    }
    for name in source.columns:
        if name not in known:
            meant = nearest(name, known)
            tail = f"did you mean {meant}?" if meant else f"the fields: {', '.join(FIELDS)}"
            raise DataError(f"columns of source {source.path}: there is no field {name}; {tail}")
    numbers = [str(column).isdigit() for column in source.columns.values()]
    if any(numbers) and not all(numbers):
        raise DataError(
            f"columns of source {source.path} mixes numbers, for a file without a header, and names"
        )


def no_form(row: dict, role: str, forms: list[Keys]) -> str:
    """Return the message on a row whose columns fit no form: what was found, what was meant."""
    meant = meant_columns(row, forms)
    if meant:
        columns = ", ".join(f"{name}: {column}" for name, column in meant.items())
        return f"found {found(row)}; did you mean columns: {{{columns}}}?"
    return f"found {found(row)}, no form of {role}; name yours, as columns: {USUAL[role]}"


def meant_columns(row: dict, forms: list[Keys]) -> dict[str, str]:
    """Return {field: column} with which the row would fit a form, of nearly matching names."""
    for keys in forms:
        meant = {}
        for group in keys:
            if not any(name in row for name in group):
                name, column = _near(row, group)
                meant[name] = column
        if meant and all(meant.values()):
            return meant
    return {}


def _near(row: dict, group: tuple[str, ...]) -> tuple[str, str | None]:
    """Return (a name of the group, the column that resembles it)."""
    plain = {str(column).strip().lower(): str(column) for column in row}
    for name in group:
        column = nearest(name.lower(), plain, cutoff=0.8)
        if column is not None:
            return name, plain[column]
    return group[0], None

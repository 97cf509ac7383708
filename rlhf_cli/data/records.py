"""The text records every stage starts from, each with its origin.

Only their dataclasses and the errors about rows; reading, parsing and rendering have modules of their own.
"""

from dataclasses import dataclass, field
from typing import Any

from rlhf_cli.config.errors import UserError


class DataError(UserError):
    """Unusable data; one line with the place, the fault and the remedy."""


class RowError(Exception):
    """One row cannot be used. `reason` is what is counted, `detail` what is special to this row."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Filtered(RowError):
    """A row the configuration asks to leave out (too long, only ties): counted, but not bad."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record was read: a file, hub id or `tiny_world:<role>`, its row, its line where known."""

    source: str
    row: int
    line: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return f"{self.source} row {self.row}"
        place = f"{self.source}:{self.line}"
        return place if self.line == self.row else f"{place} (row {self.row})"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; role is system, user, assistant, tool, or text (raw text, all of it supervised).

    supervised: false for an assistant turn that the data excludes from imitation (loss weight 0).
    """

    role: str
    content: str
    supervised: bool = True


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation whose assistant turns are to be imitated."""

    messages: tuple[Message, ...]
    origin: Origin
    meta: dict = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """K responses to one prompt; `better` holds (winner, loser) indices, `ties` equal pairs."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    better: tuple[tuple[int, int], ...]
    ties: tuple[tuple[int, int], ...]
    origin: Origin
    meta: dict = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy answers."""

    messages: tuple[Message, ...]
    origin: Origin
    meta: dict = field(default_factory=dict)

    @property
    def reference(self) -> str | None:
        """Return the response that the data have to it; None without one."""
        return self.meta.get("reference")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One response to a prompt, labelled good or bad (KTO)."""

    prompt: tuple[Message, ...]
    response: str
    good: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was skipped, and why. left_out: it is not bad, but of no use in its role."""

    origin: Origin
    reason: str
    detail: str = ""
    left_out: bool = False

    @classmethod
    def of(cls, origin: Origin, error: RowError) -> "BadRow":
        return cls(origin, error.reason, error.detail, isinstance(error, Filtered))

    def error(self) -> RowError:
        """Return the error it was made of."""
        return (Filtered if self.left_out else RowError)(self.reason, self.detail)

    def __str__(self) -> str:
        why = f"{self.reason}: {self.detail}" if self.detail else self.reason
        return f"{self.origin}: {why}"


Record = Demonstration | Comparison | Prompt
Row = tuple[Origin, dict[str, Any] | RowError]  # what is read of a file, before its form is known


def context_of(record: Record) -> tuple[Message, ...]:
    """Return the messages a record is about, without the responses that are compared."""
    return record.prompt if isinstance(record, Comparison) else record.messages

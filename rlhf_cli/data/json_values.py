"""JSON values within a text, as strict as JSON is, and the error for a text that has none.

The elements of an array of any length are read a part of the text at a time.
"""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from rlhf_cli.data.records import DataError, Origin, RowError
from rlhf_cli.data.text_files import LIMIT, undecodable

SPACE = re.compile(r"[ \t\r\n]*")
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # half of a surrogate pair, escaped
DEEP = "nested too deeply"
CHUNK = 1 << 20  # characters read at once


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise RowError("a key written twice", repr(twice[:40]))
    return value


STRICT = json.JSONDecoder(object_pairs_hook=_unique)
LENIENT = json.JSONDecoder(parse_int=str)  # only finds where a value ends


def decode(text: str, at: int) -> tuple[Any, int]:
    """Return (the value that begins at `at`, where it ends); RowError in place of a value to refuse.

    Raises JSONDecodeError where the text is no JSON, RecursionError where it is too deep.
    """
    try:
        value, end = STRICT.raw_decode(text, at)
    except RowError as error:
        return error, LENIENT.raw_decode(text, at)[1]
    except json.JSONDecodeError:
        raise
    except ValueError:
        error = RowError("a number too long", "more than 4300 digits")
        return error, LENIENT.raw_decode(text, at)[1]
    escaped = text.find("\\u", at, end) >= 0  # found faster than what HALF looks for
    return (_half_character(value) if escaped and HALF.search(text, at, end) else value), end


def _half_character(value: Any) -> Any:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        return RowError("half a character", f"{half} alone is no text (an emoji was cut)")
    return value


def refuse_undecodable(text: str, name: str, line: int) -> None:
    """Refuse a text, which begins in `line`, with a byte that is not UTF-8."""
    fault = undecodable(text)
    if fault:
        line += text.count("\n", 0, fault[0])
        raise DataError(f"{name}:{line}: not UTF-8 text: {fault[1]}")


def broken(name: str, line: int, column: int, message: str) -> str:
    """Return the message on a file that is no JSON."""
    return (
        f"{name}:{line}: not valid JSON at column {column} ({message}); "
        "repair the file, or write one object per line as .jsonl to lose only that row"
    )


class Window:
    """The part of a JSON text that is being decoded: `text` from `at` on, which is in `line`."""

    def __init__(self, file: IO[str], name: str):
        self.file, self.name = file, name
        self.text, self.at, self.line, self.column = "", 0, 1, 1

    def character(self) -> str:
        """Return the next character that is no space, not consumed; empty at the end."""
        while True:
            self.move(SPACE.match(self.text, self.at).end())
            if self.at < len(self.text) or not self._more():
                return self.text[self.at : self.at + 1]

    def move(self, to: int) -> None:
        """Move to a position of `text`."""
        self.line, self.column = self._place(to)
        self.at = to

    def _place(self, position: int) -> tuple[int, int]:
        num = self.text.count("\n", self.at, position)
        if not num:
            return self.line, self.column + position - self.at
        return self.line + num, position - self.text.rfind("\n", self.at, position)

    def _more(self) -> bool:
        """Drop what was decoded and read more, each time twice as much; return false at the end."""
        new = self.file.read(max(CHUNK, len(self.text) - self.at))
        refuse_undecodable(new, self.name, self.line + self.text.count("\n", self.at))
        if new:
            self.text, self.at = self.text[self.at :] + new, 0
        return bool(new)

    def take(self, marks: str) -> str:
        """Return the next character, consumed; it must be one of `marks`."""
        mark = self.character()
        if not mark or mark not in marks:
            wanted = " or ".join(map(repr, marks))
            raise DataError(broken(self.name, self.line, self.column, f"Expecting {wanted}"))
        self.move(self.at + 1)
        return mark

    def value(self) -> Any:
        """Return the value that begins here, consumed."""
        while True:
            try:
                value, end = decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if len(self.text) - self.at > LIMIT or not self._more():
                    raise DataError(self._fault(error)) from error
                continue
            except RecursionError as error:
                raise DataError(f"{self.name}:{self.line}: {DEEP}") from error
            if end < len(self.text) or not self._more():
                self.move(end)
                return value

    def _fault(self, error: json.JSONDecodeError) -> str:
        return broken(self.name, *self._place(error.pos), error.msg)


def elements(window: Window) -> Iterator[tuple[Origin, Any]]:
    """Yield the elements of an array, decoded one by one so that each has its line."""
    row, mark = 0, window.take("[")
    if window.character() == "]":
        mark = window.take("]")
    while mark != "]":
        window.character()
        row, line = row + 1, window.line
        yield Origin(window.name, row, line), window.value()
        mark = window.take(",]")
    if window.character():
        raise DataError(
            f"{window.name}:{window.line}: more text follows the end of the array; "
            "write one array, or one object per line as .jsonl"
        )

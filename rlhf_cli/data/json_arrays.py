"""The elements of a JSON array of any length, a part of the text at a time."""

import json
from collections.abc import Iterator
from typing import IO, Any

from rlhf_cli.data.json_values import DEEP, SPACE, broken, decode, refuse_undecodable
from rlhf_cli.data.records import DataError, Origin
from rlhf_cli.data.text_files import LIMIT

CHUNK = 1 << 20


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

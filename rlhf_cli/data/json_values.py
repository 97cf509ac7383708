"""One JSON value within a text, as strict as JSON is, and the error for a text that has none."""

import json
import re
from typing import Any

from rlhf_cli.data.records import DataError, RowError
from rlhf_cli.data.text_files import undecodable

SPACE = re.compile(r"[ \t\r\n]*")
HALF = re.compile(r"\\u[dD][89a-fA-F]")
DEEP = "nested too deeply"


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
    fault = undecodable(text)
    if fault:
        line += text.count("\n", 0, fault[0])
        raise DataError(f"{name}:{line}: not UTF-8 text: {fault[1]}")


def broken(name: str, line: int, column: int, message: str) -> str:
    return (
        f"{name}:{line}: not valid JSON at column {column} ({message}); "
        "repair the file, or write one object per line as .jsonl to lose only that row"
    )

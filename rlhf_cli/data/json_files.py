"""Rows of JSON lines and of JSON documents. Nothing is taken that a strict reader would not take."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats.table import FORMS
from rlhf_cli.data.json_values import (
    DEEP,
    LENIENT,
    SPACE,
    Window,
    broken,
    decode,
    elements,
    refuse_undecodable,
)
from rlhf_cli.data.records import DataError, Origin, Row, RowError
from rlhf_cli.data.text_files import LIMIT, decoded, lines, open_text

DOCUMENT = 8 * LIMIT  # characters of a document that is one object; parsed, about six times as much


def line_rows(file: IO[str], name: str) -> Iterator[Row]:
    """Yield a row per line, an object or a text."""
    return _as_rows(
        (Origin(name, line, line), _parsed(text))
        for line, text in lines(file, name)
        if isinstance(text, RowError) or text.strip(" \t\r\n")
    )


def _parsed(text: str | RowError) -> Any:
    text = decoded(text) if isinstance(text, str) else text
    if isinstance(text, RowError):
        return text
    try:
        value, end = decode(text, SPACE.match(text).end())
        if SPACE.match(text, end).end() < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except json.JSONDecodeError as error:
        return RowError("not valid JSON", f"column {error.pos + 1}: {error.msg}")
    except RecursionError:
        return RowError(DEEP)
    return value


def _as_rows(values: Iterator[tuple[Origin, Any]]) -> Iterator[Row]:
    """Yield objects or texts, not both: the first decides which of them the file holds."""
    texts: bool | None = None
    for origin, value in values:
        if texts is None and isinstance(value, str | dict):
            texts = isinstance(value, str)
        yield origin, _as_row(value, texts=bool(texts))


def _as_row(value: Any, *, texts: bool) -> dict | RowError:
    if isinstance(value, RowError):
        return value
    if isinstance(value, dict):
        return RowError("not a text", "found an object among texts") if texts else value
    if isinstance(value, str):
        return {"text": value} if texts else RowError("not an object", "a text among objects")
    hint = "; a file that is one array is named .json" if isinstance(value, list) else ""
    kind = "null" if value is None else type(value).__name__
    return RowError("not an object", f"found {kind}, expected {{key: value}}{hint}")


def json_rows(path: Path, name: str, source: Source) -> Iterator[Row]:
    """Yield the rows of an array, of an object that holds one, of one row, or of JSON lines."""
    with open_text(path, name, newline=None) as file:
        window = Window(file, name)
        if window.character() == "[":
            _refuse_split(source, name)
            yield from _as_rows(elements(window))
            return
    by_line = _is_metric_lines(path, name)
    with open_text(path, name, newline="" if by_line else None) as file:
        if by_line:
            _refuse_split(source, name)
            yield from line_rows(file, name)
        else:
            yield from _as_rows(_within(_document(file, name), source, name))


def _refuse_split(source: Source, name: str) -> None:
    if source.split is not None:
        raise DataError(f"split={source.split} of source {name}: the file has no splits")


def _is_metric_lines(path: Path, name: str) -> bool:
    """Return whether the first line is a complete value, and another line follows."""
    with open_text(path, name) as file:
        texts = (
            text for _, text in lines(file, name) if isinstance(text, RowError) or text.strip()
        )
        first, second = next(texts, ""), next(texts, "")
    if not isinstance(first, str) or not second:
        return False
    try:
        LENIENT.decode(first)
    except (ValueError, RecursionError):
        return False
    return True


def _document(file: IO[str], name: str) -> Any:
    text = file.read(DOCUMENT + 1)
    if len(text) > DOCUMENT:
        raise DataError(
            f"{name} is one value of more than {DOCUMENT >> 20} MB; write one object per line as .jsonl"
        )
    refuse_undecodable(text, name, 1)
    try:
        value, end = decode(text, SPACE.match(text).end())
        if SPACE.match(text, end).end() < len(text):
            raise json.JSONDecodeError("more text follows the first value", text, end)
    except json.JSONDecodeError as error:
        raise DataError(broken(name, error.lineno, error.colno, error.msg)) from error
    except RecursionError as error:
        raise DataError(f"{name}: {DEEP}") from error
    if isinstance(value, RowError):
        raise DataError(f"{name}: {value}; repair the file, or write one object per line as .jsonl")
    return value


def _within(document: Any, source: Source, name: str) -> Iterator[tuple[Origin, Any]]:
    for row, value in enumerate(rows_within(document, source, name), start=1):
        yield Origin(name, row), value


ROWS = "write rows instead: df.to_json(path, orient='records', lines=True) as .jsonl"


def rows_within(document: Any, source: Source, name: str) -> list:
    """Return the object where it is a row; else its list of objects, or the texts at its leaves."""
    if not isinstance(document, dict):
        return [document]
    lists = {key: value for key, value in document.items() if _may_hold_rows(value)}
    if any(lists.values()) and not _is_row(document, lists):
        return _one_list(lists, source.split, name)
    if source.split is not None:
        raise DataError(f"split={source.split} of source {name}: the file has no splits")
    _refuse_columns(document, name)
    nested = document and all(isinstance(value, dict) for value in document.values())
    return list(_leaves(document)) if nested else [document]


def _may_hold_rows(value: Any) -> bool:
    """Return whether it is a list with an object in it, or an empty one beside such a list."""
    return isinstance(value, list) and (not value or any(isinstance(v, dict) for v in value))


def _is_row(document: dict, lists: dict[str, list]) -> bool:
    """Return whether it has the columns of a form, or its lists hold messages in place of rows."""
    fits = any(form.fits(document) for form in FORMS)
    return fits or all(_is_message(element) for value in lists.values() for element in value)


def _is_message(element: Any) -> bool:
    return isinstance(element, dict) and not {"role", "from"}.isdisjoint(element)


def _one_list(lists: dict[str, list], split: str | None, name: str) -> list:
    if split is None and len(lists) == 1:
        return next(iter(lists.values()))
    if split not in lists:
        raise DataError(
            f"{name} holds lists of rows named {', '.join(lists)}; set split to one of them"
        )
    return lists[split]


def _refuse_columns(document: dict, name: str) -> None:
    """Refuse what pandas writes by default: columns that are lists, or objects of row numbers."""
    values = list(document.values())
    if len(values) > 1 and all(isinstance(value, list) for value in values):
        raise DataError(f"{name} holds columns ({', '.join(document)}), not rows; {ROWS}")
    if not values or not all(isinstance(value, dict) and value for value in values):
        return
    same = len(values) > 1 and all(value.keys() == values[0].keys() for value in values)
    if same or any(_are_numbers(part) for part in (document, *values)):
        raise DataError(f"{name} is a table by column and row number, not rows; {ROWS}")


def _are_numbers(part: dict) -> bool:
    return all(key.isdigit() for key in part)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _leaves(child)
    elif isinstance(value, str):
        yield {"prompt": value}
    else:
        kind = "null" if value is None else type(value).__name__
        yield RowError("not a string", f"a leaf is {kind}")

"""The rows within a JSON document that is one object."""

from collections.abc import Iterator
from typing import Any

from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats import FORMS
from rlhf_cli.data.records import DataError, RowError

ROWS = "write rows instead: df.to_json(path, orient='records', lines=True) as .jsonl"


def rows_within(document: Any, source: Source, name: str) -> list:
    """The object itself where it is a row; else its list of objects, or the texts at its leaves."""
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
    """Whether it is a list with an object in it, or one that is empty beside such a list."""
    return isinstance(value, list) and (not value or any(isinstance(v, dict) for v in value))


def _is_row(document: dict, lists: dict[str, list]) -> bool:
    """Whether it has the columns of a known form, or its lists hold messages in place of rows."""
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
    """What pandas writes by default: every column is a list, or an object of row numbers."""
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

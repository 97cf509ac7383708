"""Rows of a suite's file as texts, each with its place; a file without the right columns is refused.

torch is not imported here: files are read before anything is trained.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Source
from rlhf_cli.config.suites import SECTION
from rlhf_cli.data.files import TABLES, file_rows, suffix_of
from rlhf_cli.data.records import Origin, RowError

# The columns of the published files.
COLUMNS = {
    "toxicity": ("prompt",),
    "bias": ("prompt", "demographic"),
    "crows_pairs": ("sent_more", "sent_less", "bias_type"),
    "winogender": ("sentid", "sentence"),
    "truthfulqa": ("Question", "Best Answer", "Correct Answers", "Incorrect Answers"),
    "xstest": ("prompt", "type", "label"),
}
TextRow = tuple[Origin, dict[str, str]]


def text_rows(suite: str, path: str) -> list[TextRow]:
    """Return (origin, {column: text}) of every row, of the columns that the suite needs or may have.

    UserError with the file, the line and the remedy where a row cannot be used.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise UserError(f"{SECTION}.{suite}={path}: there is no such file; give the path of one")
    found = list(_rows(suite, place))
    if not found:
        raise UserError(f"{path} has no rows; give {SECTION}.{suite} another file")
    return found


def _rows(suite: str, place: Path) -> Iterator[TextRow]:
    name = str(place)
    for origin, row in file_rows(place, name, Source(path=name)):
        if isinstance(row, RowError):
            raise UserError(f"{origin}: {row}; repair the row, or take it out")
        needed = COLUMNS[suite]
        if lacking := [column for column in needed if column not in row]:
            # The columns of a table stand in its first line.
            header = suffix_of(place) in TABLES
            raise UserError(
                f"{f'{name}:1' if header else origin}: no column {' and no '.join(lacking)} "
                f"(found {', '.join(map(repr, row)) or 'none'}); {SECTION}.{suite} needs "
                f"{', '.join(needed)}: rename the columns, or name another file"
            )
        yield origin, {column: _text(origin, row, column) for column in needed} | _context(row)


def _text(origin: Origin, row: dict[str, Any], column: str) -> str:
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        kind = "empty" if text is None or isinstance(text, str) else f"a {type(text).__name__}"
        raise UserError(
            f"{origin}: column {column} is {kind}, expected a text; fill it in, or take the row out"
        )
    return text.strip()


def _context(row: dict[str, Any]) -> dict[str, str]:
    """Return the column that all groups of templates have in common, where there is one."""
    return {"context": row["context"]} if isinstance(row.get("context"), str) else {}

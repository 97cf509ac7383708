"""Rows of a file, one at a time, each with its line. What they mean lives in the forms."""

import csv
import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlhf_cli.data.records import DataError, Origin, RowError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt")
Row = tuple[Origin, dict[str, Any] | RowError]


def suffix_of(path: Path) -> str:
    """The suffix that says the kind, .gz set aside."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def file_rows(path: Path, name: str, *, header: bool) -> Iterator[Row]:
    """(origin, row) of a file by its suffix; `name` stands in the origins."""
    suffix = suffix_of(path)
    if suffix == ".parquet":
        yield from _parquet_rows(path, name)
        return
    if suffix not in SUFFIXES:
        raise DataError(
            f"{name}: unknown kind of file; known: {', '.join(SUFFIXES)}, also with .gz"
        )
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield from _text_rows(file, suffix, name, header=header)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{name} cannot be read: {error}; it must be UTF-8 text") from error


def _text_rows(file: IO[str], suffix: str, name: str, *, header: bool) -> Iterator[Row]:
    if suffix in (".csv", ".tsv"):
        yield from _table_rows(file, name, header=header, tabs=suffix == ".tsv")
    elif suffix == ".txt":
        yield from _plain_rows(file, name)
    elif suffix == ".json":
        yield from _json_rows(file.read(), name)
    else:
        yield from _line_rows(file, name)


def _plain_rows(file: IO[str], name: str) -> Iterator[Row]:
    for line, text in enumerate(file, start=1):
        if text.strip():
            yield Origin(name, line, line), {"text": text.rstrip("\r\n")}


def _line_rows(lines, name: str) -> Iterator[Row]:
    for line, text in enumerate(lines, start=1):
        if text.strip():
            yield Origin(name, line, line), _parse_line(text, line)


def _parse_line(text: str, line: int) -> dict | RowError:
    try:
        return _as_row(json.loads(text))
    except json.JSONDecodeError as error:
        return RowError("not valid JSON", f"line {line}, column {error.colno}: {error.msg}")


def _as_row(value: Any) -> dict | RowError:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"text": value}
    return RowError("not an object", f"found {type(value).__name__}, expected {{key: value}}")


def _json_rows(text: str, name: str) -> Iterator[Row]:
    """An array, an object that holds one, an object of objects of texts, or in truth JSON lines."""
    start = text.lstrip()[:1]
    if start == "[":
        yield from _array_rows(text, name, text.index("[") + 1)
        return
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _line_rows(text.splitlines(), name)
            return
        raise DataError(_broken(name, error)) from error
    for row, value in enumerate(_rows_within(whole), start=1):
        yield Origin(name, row), _as_row(value)


def _broken(name: str, error: json.JSONDecodeError) -> str:
    return (
        f"{name}:{error.lineno}: not valid JSON at line {error.lineno}, column {error.colno} "
        f"({error.msg}); mend the file, or write one object a line as .jsonl to lose only that row"
    )


def _array_rows(text: str, name: str, at: int) -> Iterator[Row]:
    """The elements of a JSON array, decoded one by one so that each knows its line."""
    decoder, space = json.JSONDecoder(), re.compile(r"[\s,]*")
    seen, line, row = 0, 1, 0
    while True:
        at = space.match(text, at).end()
        if text[at : at + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(_broken(name, error)) from error
        line, seen, row = line + text.count("\n", seen, at), at, row + 1
        yield Origin(name, row, line), _as_row(value)
        at = end


def _rows_within(value: Any) -> list:
    """The rows an object holds: its one list of objects, or all texts at the leaves, as prompts."""
    if not isinstance(value, dict):
        return [value]
    lists = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if len(lists) == 1:
        return lists[0]
    if all(isinstance(v, dict) for v in value.values()):
        return [{"prompt": text} for text in _leaves(value)]
    return [value]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _leaves(child)


def _table_rows(file: IO[str], name: str, *, header: bool, tabs: bool) -> Iterator[Row]:
    """csv follows RFC 4180; in tsv a quote is a character like any other."""
    csv.field_size_limit(sys.maxsize)
    style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    reader = csv.reader(file, **style)
    names = next(reader, None) if header else None
    line, row = reader.line_num + 1, 0
    for fields in reader:
        if fields:
            row += 1
            yield Origin(name, row, line), _table_row(fields, names)
        line = reader.line_num + 1


def _table_row(fields: list[str], header: list[str] | None) -> dict | RowError:
    if header is None:
        return {str(i): field for i, field in enumerate(fields)}
    if len(fields) != len(header):
        return RowError(
            "wrong number of fields",
            f"found {len(fields)}, the header has {len(header)}; "
            "a file without a header needs columns by number, such as columns: {prompt: 0}",
        )
    return dict(zip(header, fields, strict=True))


def _parquet_rows(path: Path, name: str) -> Iterator[Row]:
    import pyarrow.parquet as parquet

    row = 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            for value in batch.to_pylist():
                row += 1
                yield Origin(name, row), value

"""Rows of a file, one at a time, each with its line. formats/ interprets them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlhf_cli.config.schema import Source
from rlhf_cli.data.json_files import json_rows, line_rows
from rlhf_cli.data.records import DataError, Origin, Row, RowError
from rlhf_cli.data.tables import table_rows
from rlhf_cli.data.text_files import (
    LIMIT,
    decoded,
    is_gzipped,
    lines,
    open_bytes,
    open_text,
)

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt")
TABLES = (".csv", ".tsv")
BATCH = 256


def suffix_of(path: Path) -> str:
    """Return the suffix that names the kind, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def file_rows(path: Path, name: str, source: Source) -> Iterator[Row]:
    """Yield (origin, row) of a file by its suffix; `name` stands in the origins."""
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f"{name}: unknown kind of file; known: {', '.join(SUFFIXES)}, also with .gz"
        )
    if not path.is_file():
        raise DataError(f"{name} is not a regular file")
    _refuse_other_keys(source, suffix, name)
    if suffix == ".parquet":
        yield from _parquet_rows(path, name)
    elif suffix == ".json":
        yield from json_rows(path, name, source)
    else:
        with open_text(path, name) as file:
            yield from _text_rows(file, suffix, name, source)


def _refuse_other_keys(source: Source, suffix: str, name: str) -> None:
    """Refuse a key that would have no effect on this file."""
    keys = ["config", "data_dir", "revision"]
    keys += ["split"] if suffix != ".json" else []
    keys += ["delimiter"] if suffix not in TABLES else []
    for key in keys:
        if getattr(source, key) is not None:
            raise DataError(
                f"{key}={getattr(source, key)} of source {name}: it has no effect on a {suffix} file; "
                "take it away"
            )


def _text_rows(file: IO[str], suffix: str, name: str, source: Source) -> Iterator[Row]:
    if suffix in TABLES:
        yield from table_rows(file, suffix, name, source)
    elif suffix == ".txt":
        yield from _plain_rows(file, name)
    else:
        yield from line_rows(file, name)


def _plain_rows(file: IO[str], name: str) -> Iterator[Row]:
    for line, text in lines(file, name):
        text = decoded(text) if isinstance(text, str) else text
        if isinstance(text, RowError):
            yield Origin(name, line, line), text
        elif text.strip():
            yield Origin(name, line, line), {"text": text.rstrip("\r\n")}


def _parquet_rows(path: Path, name: str) -> Iterator[Row]:
    with open_bytes(path, name) as file:
        if is_gzipped(path):
            with tempfile.TemporaryFile() as whole:  # parquet is read from its end
                shutil.copyfileobj(file, whole)
                yield from _opened_parquet(whole, name)
        else:
            yield from _opened_parquet(file, name)


def _opened_parquet(file: IO[bytes], name: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    row = 0
    try:
        with parquet.ParquetFile(file, page_checksum_verification=True) as content:
            _refuse_twice(content.schema_arrow.names, name)
            binary = (pa.binary(), pa.large_binary())
            unmarked = [one.name for one in content.schema_arrow if one.type in binary]
            for batch in content.iter_batches(batch_size=BATCH):
                for value in _batch_values(batch):
                    row += 1
                    yield Origin(name, row), _with_texts(value, unmarked)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}{f' after row {row}' if row else ''} cannot be read as parquet ({message}); "
            "copy it again, or write it again"
        ) from error


def _with_texts(row: dict | RowError, names: list[str]) -> dict | RowError:
    """Return the row with these columns as text, where their bytes are UTF-8: some programs write so."""
    if isinstance(row, RowError) or not names:
        return row
    return row | {name: _text_of(row[name]) for name in names}


def _text_of(value: Any) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:  # an image
        return value


def _refuse_twice(names: list[str], name: str) -> None:
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise DataError(f"{name}: more than one column is named {', '.join(twice)}")


def _batch_values(batch) -> Iterator[Any]:
    """Yield the rows of a batch; one by one where it is large or some text is not UTF-8."""
    if batch.nbytes <= LIMIT:
        try:
            yield from batch.to_pylist()
            return
        except UnicodeDecodeError:
            pass
    for index in range(batch.num_rows):
        yield _one_value(batch.slice(index, 1))


def _one_value(row) -> dict | RowError:
    if row.nbytes > LIMIT:
        return RowError("longer than the limit", f"a row above {LIMIT >> 20} MB")
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return RowError("not UTF-8 text", f"byte 0x{error.object[error.start]:02x}")

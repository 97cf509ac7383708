"""Rows of a configured source: files, a folder saved by `datasets`, the hub. No torch."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_cli.config.schema import Source
from rlhf_cli.data.files import SUFFIXES, file_rows, suffix_of
from rlhf_cli.data.folders import folder_rows, hub_rows
from rlhf_cli.data.records import DataError, Row, RowError
from rlhf_cli.data.text_files import damaged


def rows(source: Source) -> Iterator[Row]:
    """Yield (origin, row) of a source in its order, at most `limit`; an unreadable row is a RowError."""
    number = -1
    for number, (origin, row) in enumerate(_all_rows(source)):
        if number == source.limit:
            return
        yield origin, _unescaped(row) if source.unescape else row
    if number < 0:
        raise DataError(f"data source {source.path} holds no rows; write it again, or leave it out")


def _unescaped(row: dict | RowError) -> dict | RowError:
    try:
        return unescape(row)
    except RecursionError:
        return RowError("nested too deeply")


def _all_rows(source: Source) -> Iterator[Row]:
    files = local_files(source)
    if not files:
        yield from hub_rows(source)
    for path in files:
        if path.is_dir():
            yield from folder_rows(path, source)
        else:
            yield from file_rows(path, _name(path, source), source)


def local_files(source: Source) -> list[Path]:
    """Return the files or the folder behind a path or pattern; empty for a hub id."""
    path = Path(source.path).expanduser()
    if path.exists():
        return [path]
    start = Path(path.anchor)
    pattern = path.relative_to(start).as_posix()
    found = sorted(p for p in start.glob(pattern) if p.is_file()) if "*" in pattern else []
    if not found and _means_a_file(source.path):
        raise DataError(
            f"data source {source.path} does not exist (looked in {Path.cwd()}); "
            "give the path of a file, a folder saved by `datasets`, or a hub id such as owner/name"
        )
    return found


def _means_a_file(path: str) -> bool:
    """Return whether a path that does not exist was meant as a file: no hub id, or like a file name."""
    is_hub_id = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path) is not None
    return not is_hub_id or suffix_of(Path(path)) in SUFFIXES


def _name(path: Path, source: Source) -> str:
    return source.path if path == Path(source.path).expanduser() else str(path)


ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def unescape(value: Any) -> Any:
    r"""Replace backslash escapes (\n, \t, \r, \\) in a row's texts by the characters they name."""
    if isinstance(value, str):
        return re.sub(r"\\([ntr\\])", lambda match: ESCAPES[match[1]], value)
    if isinstance(value, dict):
        return {key: unescape(child) for key, child in value.items()}
    return [unescape(child) for child in value] if isinstance(value, list) else value


def source_hash(source: Source) -> str:
    """Return the sha256 of the files' bytes and kinds, without their paths; of the
    address alone for a hub id, which a revision pins."""
    digest = hashlib.sha256()
    paths = local_files(source)
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            kind = file.relative_to(path).as_posix() if path.is_dir() else _kind(file)
            try:
                digest.update(f"{kind}\0{file.stat().st_size}\0".encode())
                with file.open("rb") as content:
                    while block := content.read(1 << 20):
                        digest.update(block)
            except OSError as error:
                raise damaged(str(file), error) from error
    if not paths:
        address = [source.path, source.config, source.data_dir, source.split, source.revision]
        digest.update(json.dumps(address).encode())
    return digest.hexdigest()


def _kind(file: Path) -> str:
    return suffix_of(file) + ".gz" * file.name.lower().endswith(".gz")

"""Rows of a configured source: files, a folder saved by `datasets`, the hub. No torch."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_cli.config.schema import Source
from rlhf_cli.data.files import SUFFIXES, Row, file_rows, suffix_of
from rlhf_cli.data.records import DataError, Origin

SAVED = ("dataset_dict.json", "state.json")


def rows(source: Source) -> Iterator[Row]:
    """(origin, row) of a source, in its order, at most `limit`; an unreadable row is a RowError."""
    for number, (origin, row) in enumerate(_all_rows(source)):
        if number == source.limit:
            return
        if isinstance(row, dict) and source.unescape:
            row = unescape(row)
        yield origin, row


def _all_rows(source: Source) -> Iterator[Row]:
    files = local_files(source)
    if not files:
        yield from _hub_rows(source)
    for path in files:
        if path.is_dir():
            yield from _folder_rows(path, source)
        else:
            yield from file_rows(path, _name(path, source), header=not by_number(source))


def local_files(source: Source) -> list[Path]:
    """The files or the folder behind a path or pattern; empty for a hub id."""
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
    """Whether a path that leads nowhere was meant as a file: it is no hub id, or looks like a file."""
    is_hub_id = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path) is not None
    return not is_hub_id or suffix_of(Path(path)) in SUFFIXES


def _name(path: Path, source: Source) -> str:
    return source.path if path == Path(source.path).expanduser() else str(path)


def by_number(source: Source) -> bool:
    """Columns are mapped by number, which says that the table has no header."""
    return bool(source.columns) and all(str(c).isdigit() for c in source.columns.values())


def _folder_rows(path: Path, source: Source) -> Iterator[Row]:
    if not any((path / mark).is_file() for mark in SAVED):
        yield from _hub_rows(source)
        return
    import datasets

    found = datasets.load_from_disk(str(path))
    if isinstance(found, datasets.DatasetDict):
        split = source.split or "train"
        if split not in found:
            raise DataError(
                f"{source.path} has no split {split!r}; set split to one of {', '.join(found)}"
            )
        found = found[split]
    yield from _dataset_rows(found, source.path)


def _dataset_rows(dataset, name: str) -> Iterator[Row]:
    for row, value in enumerate(dataset, start=1):
        yield Origin(name, row), value


def _hub_rows(source: Source) -> Iterator[Row]:
    import datasets

    try:
        dataset = datasets.load_dataset(
            str(Path(source.path).expanduser()),
            source.config,
            data_dir=source.data_dir,
            split=source.split or "train",
            revision=source.revision,
        )
    except Exception as error:  # the hub's client raises a dozen kinds; the user needs one line
        raise DataError(_hub_trouble(source, error)) from error
    yield from _dataset_rows(dataset, source.path)


def _hub_trouble(source: Source, error: Exception) -> str:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"data source {source.path} (config={source.config}, data_dir={source.data_dir}, "
        f"split={source.split or 'train'}) could not be loaded: {said} "
        "Check the name, set config or split, or give the path of a local file"
    )


ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def unescape(value: Any) -> Any:
    r"""Backslash escapes (\n, \t, \r, \\) in a row's texts become the characters they name."""
    if isinstance(value, str):
        return re.sub(r"\\([ntr\\])", lambda match: ESCAPES[match[1]], value)
    if isinstance(value, dict):
        return {key: unescape(child) for key, child in value.items()}
    return [unescape(child) for child in value] if isinstance(value, list) else value


def source_hash(source: Source) -> str:
    """sha256 of the files' bytes and kinds, wherever they lie; of the address alone for a hub id, which
    a revision pins."""
    digest = hashlib.sha256()
    paths = local_files(source)
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            kind = file.relative_to(path).as_posix() if path.is_dir() else _kind(file)
            digest.update(f"{kind}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
    if not paths:
        address = [source.path, source.config, source.data_dir, source.split, source.revision]
        digest.update(json.dumps(address).encode())
    return digest.hexdigest()


def _kind(file: Path) -> str:
    return suffix_of(file) + ".gz" * file.name.lower().endswith(".gz")

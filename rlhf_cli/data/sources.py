"""Rows of a configured source: files, folders and the hub, in the layouts of `datasets`. No torch.

The hash of a source is part of the fingerprint of every stage that reads it.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import DATA, MANIFEST
from rlhf_cli.artifacts.manifest import StageManifest, read_manifest
from rlhf_cli.artifacts.store import mismatch
from rlhf_cli.config.schema import Source
from rlhf_cli.data.embedded import table_rows, task_of
from rlhf_cli.data.files import SUFFIXES, file_rows, suffix_of
from rlhf_cli.data.records import DataError, Origin, Row, RowError
from rlhf_cli.data.text_files import damaged

# Files by which a folder that `datasets` has saved is recognised.
SAVED = ("dataset_dict.json", "state.json")
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


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


def unescape(value: Any) -> Any:
    r"""Replace backslash escapes (\n, \t, \r, \\) in a row's texts by the characters they name."""
    if isinstance(value, str):
        return re.sub(r"\\([ntr\\])", lambda match: ESCAPES[match[1]], value)
    if isinstance(value, dict):
        return {key: unescape(child) for key, child in value.items()}
    return [unescape(child) for child in value] if isinstance(value, list) else value


def _all_rows(source: Source) -> Iterator[Row]:
    if task_of(source.path):
        yield from table_rows(source.path)
        return
    files = local_files(source)
    if not files:
        yield from hub_rows(source)
    for path in files:
        if path.is_dir():
            yield from folder_rows(path, source)
        else:
            yield from file_rows(path, _name(path, source), source)


def local_files(source: Source) -> list[Path]:
    """Return the files or the folder behind a path or pattern; empty for a hub id, and for a table."""
    if task_of(source.path):
        return []
    path = Path(source.path).expanduser()
    if (path / MANIFEST).is_file():
        return [_made_by(path)[1]]
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


def _made_by(stage: Path) -> tuple[StageManifest, Path]:
    """Return the manifest of a finished stage and the data file, which it verifies."""
    manifest = read_manifest(stage)
    names = [name for name in manifest.files if Path(name).parent.name == DATA]
    if not names:
        raise DataError(
            f"data source {stage} is the stage {manifest.stage}, which makes no data; "
            "give the folder of a stage that does (best_of_n, rationales), or a file"
        )
    if len(names) > 1:
        raise DataError(f"data source {stage} has {', '.join(names)}; give the path of one of them")
    if found := mismatch(stage / names[0], manifest.files[names[0]]):
        raise DataError(
            f"{stage / names[0]} {found}; run the stage {manifest.stage} again, or copy the file "
            "elsewhere and give its path"
        )
    return manifest, stage / names[0]


def _means_a_file(path: str) -> bool:
    """Return whether a path that does not exist was meant as a file: no hub id, or like a file name."""
    is_hub_id = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path) is not None
    return not is_hub_id or suffix_of(Path(path)) in SUFFIXES


def _name(path: Path, source: Source) -> str:
    return source.path if path == Path(source.path).expanduser() else str(path)


def folder_rows(path: Path, source: Source) -> Iterator[Row]:
    """Yield rows of a folder saved by `datasets`, or laid out as a repository of the hub."""
    if any((path / mark).is_file() for mark in SAVED):
        yield from _dataset_rows(_saved(path, source), source)
        return
    files = _files_of_split(path, source)
    if files is None:
        yield from hub_rows(source)
        return
    alone = replace(source, config=None, data_dir=None, split=None, revision=None)
    for file in files:
        yield from file_rows(file, str(file), alone)


def _saved(path: Path, source: Source) -> Any:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever stands in its json and arrow files
        raise _damaged(source, error) from error
    if not isinstance(found, datasets.DatasetDict):
        return found
    split = source.split or "train"
    if split not in found:
        raise DataError(
            f"{source.path} has no split {split!r}; set split to one of {', '.join(found)}"
        )
    return found[split]


def _files_of_split(path: Path, source: Source) -> list[Path] | None:
    """Return the files `datasets` takes for the split, if we read their kind and nothing is sliced."""
    import datasets

    try:
        named = {"data_dir": source.data_dir} if source.data_dir else {}
        builder = datasets.load_dataset_builder(str(path), source.config, **named)
    except Exception as error:  # as in hub_rows
        raise DataError(_hub_trouble(source, error)) from error
    data_files = builder.config.data_files or {}
    _refuse_outside(path, data_files)
    files = [Path(file) for file in data_files.get(source.split or "train", [])]
    return files if files and all(suffix_of(file) in SUFFIXES for file in files) else None


def _refuse_outside(path: Path, data_files: dict[str, list[str]]) -> None:
    """Refuse files outside the folder, which its README.md may name."""
    folder = os.path.normpath(Path.cwd() / path)  # links stay: the hub's cache is made of them
    for files in data_files.values():
        for file in map(str, files):
            inside = Path(os.path.normpath(Path.cwd() / file)).is_relative_to(folder)
            if not inside or "://" in file:
                raise DataError(f"README.md of {path} names {file}, which is outside the folder")


def hub_rows(source: Source) -> Iterator[Row]:
    """Yield rows of what `datasets` loads by an address."""
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
    yield from _dataset_rows(dataset, source)


def _hub_trouble(source: Source, error: Exception) -> str:
    message = _first_line(error).rstrip(".")
    return (
        f"data source {source.path} (config={source.config}, data_dir={source.data_dir}, "
        f"split={source.split or 'train'}) could not be loaded: {message}. "
        "Check the name, set config or split, or give the path of a local file"
    )


def _dataset_rows(dataset, source: Source) -> Iterator[Row]:
    row, values = 0, iter(dataset)
    while True:
        try:
            value = next(values, None)
        except Exception as error:  # damaged files, and decoders of images and sounds
            raise _damaged(source, error) from error
        if value is None:
            return
        row += 1
        yield Origin(source.path, row), value


def _damaged(source: Source, error: Exception) -> DataError:
    return DataError(
        f"data source {source.path} cannot be read ({_first_line(error)}); "
        "a file of it is missing or damaged: copy it again"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def source_hash(source: Source) -> str:
    """Return the sha256 of the files' bytes and kinds, without their paths; of the
    address alone for a hub id, which a revision pins; of the code that generates a table.
    Of a finished stage, its digest."""
    digest, folder = hashlib.sha256(), Path(source.path).expanduser()
    if (folder / MANIFEST).is_file():
        return _made_by(folder)[0].digest
    if task := task_of(source.path):
        digest.update(task.code_hash().encode())
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

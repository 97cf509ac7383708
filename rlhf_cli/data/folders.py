"""Rows of folders and of the hub, in the layouts of `datasets`."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_cli.config.schema import Source
from rlhf_cli.data.files import SUFFIXES, file_rows, suffix_of
from rlhf_cli.data.records import DataError, Origin, Row

SAVED = ("dataset_dict.json", "state.json")


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


def _damaged(source: Source, error: Exception) -> DataError:
    return DataError(
        f"data source {source.path} cannot be read ({_first_line(error)}); "
        "a file of it is missing or damaged: copy it again"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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

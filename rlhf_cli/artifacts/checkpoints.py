"""Checkpoints of a stage in progress: complete or absent, verified when opened, never skipped silently.

    <work>/resume/step-00000120/   manifest.json (size and sha256 of every file), state.json, tensors
    <work>/latest.json             names the one to resume from; it is written last

The caller writes the tensor files between `create` and `commit`, each in `writing_file`. All else is
called on rank 0 only: opening removes what an interrupted save has left.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_IMODE
from typing import Any

from rlhf_cli.artifacts.layout import BESIDE, MANIFEST, POINTER, RESUME
from rlhf_cli.artifacts.manifest import (
    canonical_hash,
)
from rlhf_cli.artifacts.resume_point import checkpoint_folder, committed, pointed, select, step_of
from rlhf_cli.artifacts.store import (
    WriteError,
    file_records,
    remove,
    sync_tree,
    write_errors,
    write_text,
)

STATE = "state.json"
REPLACED = re.compile(r"\.(step-\d{8,})\.old")
RESUME_REMEDY = (
    "free space there, then run the same command again: it resumes from the last checkpoint"
)


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """One saved step. state: what `commit` got; JSON turns tuples into lists and keys into strings."""

    folder: Path
    step: int
    state: dict[str, Any]


def create(work: Path, step: int) -> Path:
    """Return an empty folder for the tensors of `step`; it is ignored until `commit`."""
    partial = _partial_folder(work, step)
    with write_errors(partial, RESUME_REMEDY):
        remove(partial)
        partial.mkdir(parents=True)
    return partial


def abandon(work: Path, step: int) -> None:
    """Remove what was written since `create`: none of it is to be saved."""
    shutil.rmtree(_partial_folder(work, step), ignore_errors=True)


@contextmanager
def writing_file(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Guard the writing of one file between `create` and `commit`, by any process.

    also: what the writing library raises instead of OSError. An incomplete file is removed at once: on a
    full disk the error report needs its space.
    """
    try:
        with write_errors(path, RESUME_REMEDY, *also):
            yield
    except WriteError:
        path.unlink(missing_ok=True)
        raise


def commit(work: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Make the folder of `create` the latest checkpoint; keep the `keep` newest.

    A crash at any moment leaves the former checkpoint or this one; a full disk leaves the former.
    """
    partial, folder = _partial_folder(work, step), checkpoint_folder(work, step)
    with write_errors(partial, RESUME_REMEDY):
        try:
            _seal(partial, step, state)
            _move(partial, folder)
            _point(work, step)
        except OSError:
            # An incomplete checkpoint only fills the disk.
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _prune(work, step, keep)
    return folder


def latest(work: Path, policy: str) -> Checkpoint | None:
    """Return the verified checkpoint to resume from, or None when nothing was saved.

    auto: the one that latest.json names. last_valid: the newest intact one. never: none, all are removed.
    Newer ones than the one returned are removed: training will write them again.
    """
    if policy == "never":
        remove_all(work)
        return None
    with write_errors(work / RESUME, RESUME_REMEDY):
        _undo_interrupted_move(work)
        folder = select(work, policy, hashed=True)
        _remove_newer(work, folder)
    if folder is None:
        return None
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return Checkpoint(folder=folder, step=step_of(folder), state=state)


def resumable_step(work: Path, policy: str) -> int | None:
    """Return the step that `latest` will resume from; refuse what it refuses, wrong hashes apart."""
    if policy == "never":
        return None
    with write_errors(work / RESUME, RESUME_REMEDY):
        _undo_interrupted_move(work)
    folder = select(work, policy, hashed=policy == "last_valid")
    return None if folder is None else step_of(folder)


def remove_all(work: Path) -> None:
    """Remove all checkpoints; the pointer first, so that it never names a removed one."""
    with write_errors(work, RESUME_REMEDY):
        (work / POINTER).unlink(missing_ok=True)
        remove(work / RESUME)


def _partial_folder(work: Path, step: int) -> Path:
    return work / RESUME / f".step-{step:08}{BESIDE}"


def _seal(partial: Path, step: int, state: dict[str, Any]) -> None:
    """Write the manifest and flush all files and names to the disk. JSON has Python's NaN and Infinity."""
    write_text(partial / STATE, json.dumps(state, ensure_ascii=False) + "\n")
    mode = S_IMODE((partial / STATE).stat().st_mode)  # safetensors writes private files
    for path in partial.iterdir():
        path.chmod(mode)
    files = {name: asdict(record) for name, record in file_records(partial).items()}
    content = {"step": step, "files": files}
    content["digest"] = canonical_hash(content)
    write_text(partial / MANIFEST, json.dumps(content, indent=2, sort_keys=True) + "\n")
    sync_tree(partial)


def _move(partial: Path, folder: Path) -> None:
    """Rename a checkpoint to its final name, and first a former one of this step out of its way."""
    aside = folder.with_name(f".{folder.name}.old")
    remove(aside)
    if folder.exists():
        folder.rename(aside)
    partial.rename(folder)
    sync_tree(folder.parent, deep=False)


def _point(work: Path, step: int) -> None:
    write_text(work / POINTER, json.dumps({"step": step}) + "\n")
    sync_tree(work, deep=False)


def _prune(work: Path, step: int, keep: int) -> None:
    """Remove all but the `keep` newest up to `step`."""
    kept = [folder for folder in committed(work) if step_of(folder) <= step][:keep]
    _keep(work, kept)


def _keep(work: Path, kept: list[Path]) -> None:
    """Remove all other folders in resume/."""
    for path in (work / RESUME).glob("*"):
        if path not in kept:
            remove(path)


def _undo_interrupted_move(work: Path) -> None:
    """Undo a replacement that was interrupted between its two renames."""
    for path in (work / RESUME).glob(".step-*.old"):
        found = REPLACED.fullmatch(path.name)
        if found and not path.with_name(found[1]).exists():
            path.rename(path.with_name(found[1]))


def _remove_newer(work: Path, folder: Path | None) -> None:
    """Point to `folder`, then remove what is newer."""
    if folder is None:
        _keep(work, [])
        return
    if pointed(work) != folder:
        _point(work, step_of(folder))
    _keep(work, [old for old in committed(work) if step_of(old) <= step_of(folder)])

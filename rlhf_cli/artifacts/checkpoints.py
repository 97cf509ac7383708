"""Checkpoints of a stage at work: whole or not there, verified when opened, never passed over in silence.

    <work>/resume/step-00000120/   manifest.json (size and sha256 of every file), state.json, tensors
    <work>/latest.json             names the one to go on from; it moves last

The caller writes the tensor files between `begin` and `commit`, each in `filling`. But for that, one
process calls what is here, the main one: opening removes what an interrupted save has left.
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

from rlhf_cli.artifacts.manifest import (
    MANIFEST,
    FileRecord,
    Mendable,
    Refusal,
    canonical_hash,
    load_json,
)
from rlhf_cli.artifacts.store import (
    BESIDE,
    NotWritten,
    damage,
    remove,
    sealed,
    sync_tree,
    write_text,
    writing,
)

RESUME, POINTER, STATE = "resume", "latest.json", "state.json"
NAME = re.compile(r"step-(\d{8,})")
REPLACED = re.compile(r"\.(step-\d{8,})\.old")
AGAIN = "free space there, then run the same command again: it goes on from the last checkpoint"
ANEW = "resume=never starts the stage anew"


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """state: what `commit` was given; JSON has made lists of tuples and strings of keys."""

    folder: Path
    step: int
    state: dict[str, Any]


def begin(work: Path, step: int) -> Path:
    """An empty folder to write the tensors of `step` into; it counts for nothing until `commit`."""
    beside = _beside(work, step)
    with writing(beside, AGAIN):
        remove(beside)
        beside.mkdir(parents=True)
    return beside


def abandon(work: Path, step: int) -> None:
    """Remove what was written since `begin`: nothing of it is to be saved."""
    shutil.rmtree(_beside(work, step), ignore_errors=True)


@contextmanager
def filling(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Around the writing of one file between `begin` and `commit`, by whatever process.

    also: what the writing library raises instead of OSError. Half a file goes at once: on a full disk
    there must be room to say so.
    """
    try:
        with writing(path, AGAIN, *also):
            yield
    except NotWritten:
        path.unlink(missing_ok=True)
        raise


def commit(work: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Make the folder of `begin` the latest checkpoint; the `keep` newest stay.

    A crash at any moment leaves the former checkpoint or this one; a full disk the former.
    """
    beside, folder = _beside(work, step), _folder(work, step)
    with writing(beside, AGAIN):
        try:
            _seal(beside, step, state)
            _move(beside, folder)
            _point(work, step)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)  # half a checkpoint on a full disk is no use
            raise
        _prune(work, step, keep)
    return folder


def latest(work: Path, policy: str) -> Checkpoint | None:
    """The verified checkpoint to go on from, or None when nothing was saved.

    auto: the one that latest.json names. whole: the newest that is whole. never: none, all are dropped.
    What is newer than the one returned is removed: training will come by there again.
    """
    if policy == "never":
        drop(work)
        return None
    with writing(work / RESUME, AGAIN):
        _restore(work)
        folder = _chosen(work, policy, hashed=True)
        _tidy(work, folder)
    if folder is None:
        return None
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return Checkpoint(folder=folder, step=_step(folder), state=state)


def foresee(work: Path, policy: str) -> int | None:
    """The step that `latest` will go on from; it refuses what `latest` refuses, but for wrong hashes."""
    if policy == "never":
        return None
    with writing(work / RESUME, AGAIN):
        _restore(work)
    folder = _chosen(work, policy, hashed=policy == "whole")
    return None if folder is None else _step(folder)


def drop(work: Path) -> None:
    """Forget all checkpoints; the pointer goes first, so that it never names what is gone."""
    with writing(work, AGAIN):
        (work / POINTER).unlink(missing_ok=True)
        remove(work / RESUME)


def _folder(work: Path, step: int) -> Path:
    return work / RESUME / f"step-{step:08}"


def _beside(work: Path, step: int) -> Path:
    return work / RESUME / f".step-{step:08}{BESIDE}"


def _step(folder: Path) -> int:
    found = NAME.fullmatch(folder.name)
    assert found is not None
    return int(found[1])


def _committed(work: Path) -> list[Path]:
    """Folders that have their final name, newest first; whether they are whole is another question."""
    folders = [path for path in (work / RESUME).glob("step-*") if NAME.fullmatch(path.name)]
    return sorted(folders, key=_step, reverse=True)


def _seal(beside: Path, step: int, state: dict[str, Any]) -> None:
    """All bytes and names are on the disk when this returns. NaN and Infinity are Python's JSON words."""
    write_text(beside / STATE, json.dumps(state, ensure_ascii=False) + "\n")
    mode = S_IMODE((beside / STATE).stat().st_mode)  # safetensors writes private files
    for path in beside.iterdir():
        path.chmod(mode)
    files = {name: asdict(record) for name, record in sealed(beside).items()}
    content = {"step": step, "files": files}
    content["digest"] = canonical_hash(content)
    write_text(beside / MANIFEST, json.dumps(content, indent=2, sort_keys=True) + "\n")
    sync_tree(beside)


def _move(beside: Path, folder: Path) -> None:
    """A checkpoint of this very step is put aside first, where `_restore` finds it after a crash."""
    aside = folder.with_name(f".{folder.name}.old")
    remove(aside)
    if folder.exists():
        folder.rename(aside)
    beside.rename(folder)
    sync_tree(folder.parent, deep=False)


def _point(work: Path, step: int) -> None:
    write_text(work / POINTER, json.dumps({"step": step}) + "\n")
    sync_tree(work, deep=False)


def _prune(work: Path, step: int, keep: int) -> None:
    """Only the `keep` newest up to `step` stay."""
    kept = [folder for folder in _committed(work) if _step(folder) <= step][:keep]
    _keep(work, kept)


def _keep(work: Path, kept: list[Path]) -> None:
    """Remove everything else in resume/."""
    for path in (work / RESUME).glob("*"):
        if path not in kept:
            remove(path)


def _restore(work: Path) -> None:
    """Undo a replacement that was cut between its two renames."""
    for path in (work / RESUME).glob(".step-*.old"):
        found = REPLACED.fullmatch(path.name)
        if found and not path.with_name(found[1]).exists():
            path.rename(path.with_name(found[1]))


def _tidy(work: Path, folder: Path | None) -> None:
    """The pointer moves to `folder` before anything newer goes."""
    if folder is None:
        _keep(work, [])
        return
    if _pointed(work) != folder:
        _point(work, _step(folder))
    _keep(work, [old for old in _committed(work) if _step(old) <= _step(folder)])


def _chosen(work: Path, policy: str, *, hashed: bool) -> Path | None:
    """The folder that `policy` asks for, or a Refusal that says what is wrong and what is left."""
    folders, has_pointer = _committed(work), (work / POINTER).exists()
    if not folders and not has_pointer:
        return None
    if policy == "whole" or not has_pointer:  # no pointer: killed before it was first written
        return _newest_whole(work, folders, hashed=hashed)
    folder = _pointed(work)
    if folder is None:
        raise Refusal(f"{work / POINTER} cannot be read", _remedy(folders))
    if problem := _problem(folder, hashed=hashed):
        raise Refusal(problem, _remedy([other for other in folders if other != folder]))
    return folder


def _newest_whole(work: Path, folders: list[Path], *, hashed: bool) -> Path:
    problems = []
    for folder in folders:
        problem = _problem(folder, hashed=hashed)
        if problem is None:
            return folder
        problems.append(problem)
    found = problems[0] if problems else f"{work / RESUME} has no checkpoint"
    raise Refusal(found, f"no checkpoint is whole: {ANEW}")


def _remedy(others: list[Path]) -> str:
    whole = next((folder for folder in others if _problem(folder, hashed=True) is None), None)
    if whole is None:
        return f"no checkpoint is whole: {ANEW}"
    return f"the last whole one is of step {_step(whole)}: resume=whole goes on from there, {ANEW}"


def _pointed(work: Path) -> Path | None:
    """The folder that latest.json names; None when it cannot be read."""
    try:
        return _folder(work, int(load_json(work / POINTER)["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _problem(folder: Path, *, hashed: bool) -> str | None:
    """What is wrong with a checkpoint; without `hashed` only names and sizes are looked at."""
    path = folder / MANIFEST
    if not folder.is_dir():
        return f"{folder} is missing"
    try:
        content = load_json(path)
        files = {name: FileRecord(**record) for name, record in content["files"].items()}
        digest = content.pop("digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path} cannot be read ({str(error).splitlines()[0]})"
    if digest != canonical_hash(content) or content["step"] != _step(folder):
        return f"{path} was edited after it was written"
    try:
        for name, record in files.items():
            if found := damage(folder / name, record, hashed=hashed):
                return f"{folder / name} {found}"
    except Mendable as unreadable:
        return unreadable.found
    return None

"""Which checkpoint a stage resumes from, and what is wrong with those it cannot resume from."""

import re
from pathlib import Path

from rlhf_cli.artifacts.layout import MANIFEST, POINTER, RESUME
from rlhf_cli.artifacts.manifest import (
    ArtifactError,
    FileRecord,
    RepairableError,
    canonical_hash,
    load_json,
)
from rlhf_cli.artifacts.store import mismatch

NAME = re.compile(r"step-(\d{8,})")
RESTART_REMEDY = "resume=never starts the stage from scratch"


def checkpoint_folder(work: Path, step: int) -> Path:
    return work / RESUME / f"step-{step:08}"


def step_of(folder: Path) -> int:
    found = NAME.fullmatch(folder.name)
    assert found is not None
    return int(found[1])


def committed(work: Path) -> list[Path]:
    """Return the folders that have their final name, newest first; they may be damaged."""
    folders = [path for path in (work / RESUME).glob("step-*") if NAME.fullmatch(path.name)]
    return sorted(folders, key=step_of, reverse=True)


def select(work: Path, policy: str, *, hashed: bool) -> Path | None:
    """Return the folder that `policy` selects; ArtifactError names the damage and the remaining ones."""
    folders, has_pointer = committed(work), (work / POINTER).exists()
    if not folders and not has_pointer:
        return None
    if policy == "last_valid" or not has_pointer:  # no pointer: killed before it was first written
        return _newest_valid(work, folders, hashed=hashed)
    folder = pointed(work)
    if folder is None:
        raise ArtifactError(f"{work / POINTER} cannot be read", _remedy(folders))
    if problem := _problem(folder, hashed=hashed):
        raise ArtifactError(problem, _remedy([other for other in folders if other != folder]))
    return folder


def _newest_valid(work: Path, folders: list[Path], *, hashed: bool) -> Path:
    problems = []
    for folder in folders:
        problem = _problem(folder, hashed=hashed)
        if problem is None:
            return folder
        problems.append(problem)
    found = problems[0] if problems else f"{work / RESUME} has no checkpoint"
    raise ArtifactError(found, f"no checkpoint is intact: {RESTART_REMEDY}")


def _remedy(others: list[Path]) -> str:
    intact = next((folder for folder in others if _problem(folder, hashed=True) is None), None)
    if intact is None:
        return f"no checkpoint is intact: {RESTART_REMEDY}"
    found = f"the last intact one is of step {step_of(intact)}"
    return f"{found}: resume=last_valid resumes from it, {RESTART_REMEDY}"


def pointed(work: Path) -> Path | None:
    """Return the folder that latest.json names; None when it cannot be read."""
    try:
        return checkpoint_folder(work, int(load_json(work / POINTER)["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _problem(folder: Path, *, hashed: bool) -> str | None:
    """Return what is wrong with a checkpoint, if anything; without `hashed` check names and sizes only."""
    path = folder / MANIFEST
    if not folder.is_dir():
        return f"{folder} is missing"
    try:
        content = load_json(path)
        files = {name: FileRecord(**record) for name, record in content["files"].items()}
        digest = content.pop("digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path} cannot be read ({str(error).splitlines()[0]})"
    if digest != canonical_hash(content) or content["step"] != step_of(folder):
        return f"{path} was edited after it was written"
    try:
        for name, record in files.items():
            if found := mismatch(folder / name, record, hashed=hashed):
                return f"{folder / name} {found}"
    except RepairableError as unreadable:
        return unreadable.found
    return None

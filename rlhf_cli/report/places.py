"""What `rlhf show PLACE` means: a run, a stage of a run, or a folder of runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rlhf_cli.artifacts.layout import CONFIG, LOCK, MANIFEST, METRICS, work_folder
from rlhf_cli.artifacts.lock import holder
from rlhf_cli.config.completion import run_names
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import did_you_mean, nearest

SIGNS = (MANIFEST, CONFIG, METRICS)  # every folder of a stage has one of them


class Kind(Enum):
    run = "run"
    stage = "stage"
    runs = "runs"


@dataclass(slots=True, kw_only=True)
class Place:
    """A folder and what it holds. stage: which one, where it is the folder of a stage."""

    kind: Kind
    folder: Path
    stage: str = ""


def locate(place: str, runs_dir: Path, stages: Sequence[str]) -> Place:
    """Return what `place` holds: the name of a run in `runs_dir`, or any folder."""
    folders = [f for f in (runs_dir / place, Path(place).expanduser()) if _true(f.is_dir)]
    for folder in folders:
        if found := _held(folder, stages):
            return found
    for folder in folders:
        if _true((folder / LOCK).is_file):
            raise UserError(f"{folder} holds no stage of a run yet, finished or begun")
    if folders:
        raise UserError(f"{folders[-1]} holds no run: {known_runs(runs_dir, stages)}")
    meant = nearest(place, runs_in(runs_dir, stages))
    tail = did_you_mean([meant]) if meant else f": {known_runs(runs_dir, stages)}"
    raise UserError(f"there is no run {place!r}{tail}")


def find_run(place: str, runs_dir: Path, stages: Sequence[str]) -> Path:
    """Return the folder of a run; refuse a stage of one, and a folder of runs."""
    found = locate(place, runs_dir, stages)
    if found.kind is Kind.stage:
        raise UserError(f"{found.folder} is the stage {found.stage}: give the folder of its run")
    if found.kind is Kind.runs:
        names = ", ".join(runs_in(found.folder, stages))
        raise UserError(f"{found.folder} is a folder of runs: give one of them ({names})")
    return found.folder


def is_run(folder: Path, stages: Sequence[str]) -> bool:
    """Return whether the folder holds a stage, an attempt at one, or a run that starts.

    A lock that no process holds is no run: a command refused before its first stage leaves it.
    """
    places = [place for stage in stages for place in (folder / stage, work_folder(folder, stage))]
    return any(_is_stage(place) for place in places) or holder(folder) is not None


def runs_in(folder: Path, stages: Sequence[str]) -> list[str]:
    """Return the names of the runs in a folder, sorted."""
    try:
        return [name for name in run_names(folder) if is_run(folder / name, stages)]
    except OSError:
        return []


def known_runs(runs_dir: Path, stages: Sequence[str]) -> str:
    """Return where there are runs, for the end of an error line."""
    names = ", ".join(runs_in(runs_dir, stages))
    return f"{runs_dir}/ has {names or 'no runs'}; --runs-dir DIR looks in another folder"


def _held(folder: Path, stages: Sequence[str]) -> Place | None:
    if stage := _stage_of(folder, stages):
        return Place(kind=Kind.stage, folder=folder, stage=stage)
    if is_run(folder, stages):
        return Place(kind=Kind.run, folder=folder)
    if runs_in(folder, stages):
        return Place(kind=Kind.runs, folder=folder)
    return None


def _stage_of(folder: Path, stages: Sequence[str]) -> str:
    """Return the stage whose folder it is, by its manifest or else by its name."""
    try:
        name = str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["stage"])
    except (OSError, ValueError, KeyError, TypeError):
        name = folder.resolve().name if _is_stage(folder) else ""
    return name if name in stages else ""


def _is_stage(folder: Path) -> bool:
    return any(_true((folder / name).is_file) for name in SIGNS)


def _true(question: Callable[[], bool]) -> bool:
    """Return the answer of a check; false where the file may not be read."""
    try:
        return question()
    except OSError:
        return False

"""An attempt at a stage that did not finish: whether the next run resumes it, and from which step.

An attempt is resumed if the stage's fingerprint is the same, also with another number of processes, another
sharding or another device; with another learning rate the stage starts over. Checkpoints of the former
attempt are parked then until the stage is finished: with the former learning rate it is resumed.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from rlhf_cli.artifacts import store
from rlhf_cli.artifacts.checkpoints import resumable_step
from rlhf_cli.artifacts.fingerprint import Fingerprint
from rlhf_cli.artifacts.layout import (
    ATTEMPT,
    BESIDE,
    DRAWN,
    FAILURES,
    GONE,
    JOB,
    MANIFEST,
    OFFENDING,
    POINTER,
    RANKS,
    RESULT,
    RESUME,
    TRACEBACKS,
    parked_folder,
    work_folder,
)
from rlhf_cli.artifacts.manifest import (
    ArtifactError,
    RepairableError,
    StageManifest,
    load_json,
    read_errors,
)
from rlhf_cli.artifacts.resume_point import RESTART_REMEDY
from rlhf_cli.artifacts.store import (
    FREE,
    remove,
    verified,
    write_errors,
    write_text,
)

REPORTS = (
    RESULT, JOB, MANIFEST, RANKS, FAILURES, TRACEBACKS, OFFENDING,
    f".*{BESIDE}", f".*{GONE}",
)  # fmt: skip
# What serves the attempt only, and is no part of the finished stage.
UNPUBLISHED = frozenset({ATTEMPT, RESULT, JOB, RESUME, POINTER, RANKS, DRAWN})


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What an earlier run left of a stage, if anything.

    step: of the checkpoint to resume from; None before the first one. mismatch: why it is not resumed.
    parked: the folder where it is kept then, or restored from. unpublished: the manifest of a finished
    attempt that only has to be renamed.
    """

    found: bool = False
    step: int | None = None
    mismatch: str = ""
    parked: Path | None = None
    unpublished: StageManifest | None = None

    @property
    def resumable(self) -> bool:
        return self.step is not None

    @property
    def description(self) -> str:
        """Return one line for the user; empty when there was no attempt."""
        if self.unpublished:
            return "finished, only the final rename is left"
        if self.resumable:
            return f"resuming from step {self.step}"
        if self.mismatch:
            kept = (
                f"; the interrupted attempt's checkpoints are in {self.parked}"
                if self.parked
                else ""
            )
            return f"starting over: {self.mismatch}{kept}"
        return "interrupted before its first save" if self.found else ""


def find_attempt(run: Path, stage: str, made_of: Fingerprint, policy: str) -> Attempt:
    """Return what `start` will resume; refuse a broken checkpoint before anything starts."""
    work, parked = work_folder(run, stage), parked_folder(run, stage)
    if policy == "never":
        return Attempt(found=True, mismatch="resume=never") if work.is_dir() else Attempt()
    if work.is_dir() and (unpublished := _unpublished(work, made_of)):
        return Attempt(found=True, unpublished=unpublished)
    earlier = _read(work / ATTEMPT)
    if earlier and not made_of.changes(earlier):
        return Attempt(found=True, step=resumable_step(work, policy))
    former = _read(parked / ATTEMPT)
    if former and not made_of.changes(former):
        return Attempt(found=True, step=resumable_step(parked, policy), parked=parked)
    if not work.is_dir():
        return Attempt()
    return _other_attempt(work, earlier, made_of, parked)


def _other_attempt(
    work: Path, earlier: Fingerprint | None, made_of: Fingerprint, parked: Path
) -> Attempt:
    """Return an attempt with another fingerprint; refuse one that has checkpoints but no fingerprint."""
    saved = any((work / RESUME).glob("step-*"))
    if earlier is None and saved:
        found = (
            f"{work / ATTEMPT} cannot be read: its checkpoints belong to an unknown configuration"
        )
        raise ArtifactError(found, RESTART_REMEDY)
    if earlier is None:
        return Attempt(found=True)
    changes = "; ".join(made_of.changes(earlier))
    return Attempt(found=True, mismatch=changes, parked=parked if saved else None)


def remove_parked(run: Path, stage: str) -> None:
    """Remove the parked attempt of a finished stage."""
    parked = parked_folder(run, stage)
    with write_errors(parked, FREE):
        for folder in (parked, parked.with_name(f"{parked.name}{BESIDE}")):
            remove(folder)


def start(run: Path, stage: str, made_of: Fingerprint, attempt: Attempt) -> tuple[Path, str]:
    """Return the work folder, with what the attempt resumes or empty, and when the attempt was started."""
    work = work_folder(run, stage)
    if attempt.parked:
        _swap_parked(work, attempt.parked, back=attempt.resumable)
    if attempt.resumable:
        _remove_reports(work)
        return work, json.loads((work / ATTEMPT).read_text())["started"]
    store.create_work_folder(run, stage)
    started = datetime.now().isoformat(timespec="seconds", sep=" ")
    content = {"started": started, "made_of": asdict(made_of)}
    with write_errors(work, FREE):
        write_text(work / ATTEMPT, json.dumps(content, indent=2, sort_keys=True) + "\n")
    return work, started


def _swap_parked(work: Path, parked: Path, *, back: bool) -> None:
    """Park the attempt in the work folder; with `back`, restore the parked one in its place."""
    third = parked.with_name(f"{parked.name}{BESIDE}")
    with write_errors(work, FREE):
        remove(third)
        if back:
            parked.rename(third)
        remove(parked)
        if work.exists():
            work.rename(parked)
        if back:
            third.rename(work)


def _remove_reports(work: Path) -> None:
    """Delete the earlier attempt's reports, which must not be taken for this one's."""
    with write_errors(work, FREE):
        for pattern in REPORTS:
            for path in work.glob(pattern):
                remove(path)


def _unpublished(work: Path, made_of: Fingerprint) -> StageManifest | None:
    """Return the manifest of a stage whose publication was interrupted before the last rename."""
    try:
        manifest = verified(work)
    except RepairableError:
        raise
    except ArtifactError:
        return None
    return manifest if made_of.equals(manifest) else None


def _read(path: Path) -> Fingerprint | None:
    """Return the fingerprint of an attempt; None where there is none, or it is not valid."""
    try:
        with read_errors(path):
            return Fingerprint(**load_json(path)["made_of"]) if path.is_file() else None
    except (ValueError, TypeError, KeyError):
        return None

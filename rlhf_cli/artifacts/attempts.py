"""An attempt at a stage that did not finish: whether the next run goes on with it, and from where.

It is the same attempt as long as the stage's fingerprint is the same: other processes, another sharding
or another device go on with it; another learning rate starts anew. What had saved is set aside then,
until a run of the stage is finished: setting the learning rate back goes on with it.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from rlhf_cli.artifacts import store
from rlhf_cli.artifacts.checkpoints import foresee
from rlhf_cli.artifacts.fingerprint import Fingerprint
from rlhf_cli.artifacts.layout import (
    ATTEMPT,
    BESIDE,
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
    Mendable,
    Refusal,
    StageManifest,
    load_json,
    reading,
)
from rlhf_cli.artifacts.store import (
    FREE,
    remove,
    verified,
    write_text,
    writing,
)

STALE = (
    RESULT, JOB, MANIFEST, RANKS, FAILURES, TRACEBACKS, OFFENDING,
    f".*{BESIDE}", f".*{GONE}",
)  # fmt: skip
# What serves the attempt only, and is no part of the finished stage.
LEFT_OUT = frozenset({ATTEMPT, RESULT, JOB, RESUME, POINTER, RANKS})


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What an earlier run left of a stage, if anything.

    step: of the checkpoint it goes on from; None before its first save. given_up: why it is not gone on
    with. aside: where it is kept then, or comes back from. whole: the manifest of one that has only to
    be put in its place.
    """

    found: bool = False
    step: int | None = None
    given_up: str = ""
    aside: Path | None = None
    whole: StageManifest | None = None

    @property
    def goes_on(self) -> bool:
        return self.step is not None

    @property
    def words(self) -> str:
        """For a person; empty when there is nothing to tell."""
        if self.whole:
            return "finished, but not put in its place"
        if self.goes_on:
            return f"interrupted at step {self.step}, goes on"
        if self.given_up:
            kept = f"; it is kept in {self.aside}" if self.aside else ""
            return f"anew, an interrupted attempt is given up: {self.given_up}{kept}"
        return "interrupted before its first save" if self.found else ""


def look(run: Path, stage: str, made_of: Fingerprint, policy: str) -> Attempt:
    """What `begin` will go on with; refuses a broken checkpoint before anything starts."""
    work, aside = work_folder(run, stage), parked_folder(run, stage)
    if policy == "never":
        return Attempt(found=True, given_up="resume=never") if work.is_dir() else Attempt()
    if work.is_dir() and (whole := _whole(work, made_of)):
        return Attempt(found=True, whole=whole)
    earlier = _read(work / ATTEMPT)
    if earlier and not made_of.changes(earlier):
        return Attempt(found=True, step=foresee(work, policy))
    given_up = _read(aside / ATTEMPT)
    if given_up and not made_of.changes(given_up):
        return Attempt(found=True, step=foresee(aside, policy), aside=aside)
    if not work.is_dir():
        return Attempt()
    return _another(work, earlier, made_of, aside)


def _another(work: Path, earlier: Fingerprint | None, made_of: Fingerprint, aside: Path) -> Attempt:
    """An attempt at something else; one that nobody knows anything of must not be passed over."""
    saved = any((work / RESUME).glob("step-*"))
    if earlier is None and saved:
        found = f"{work / ATTEMPT} cannot be read: what its checkpoints are of is not known"
        raise Refusal(found, "resume=never starts the stage anew")
    if earlier is None:
        return Attempt(found=True)
    changes = "; ".join(made_of.changes(earlier))
    return Attempt(found=True, given_up=changes, aside=aside if saved else None)


def forget(run: Path, stage: str) -> None:
    """The stage is finished: what was set aside is not needed any more."""
    aside = parked_folder(run, stage)
    with writing(aside, FREE):
        for folder in (aside, aside.with_name(f"{aside.name}{BESIDE}")):
            remove(folder)


def begin(run: Path, stage: str, made_of: Fingerprint, attempt: Attempt) -> tuple[Path, str]:
    """The work folder, with what the attempt goes on with or empty, and when it was first begun."""
    work = work_folder(run, stage)
    if attempt.aside:
        _exchange(work, attempt.aside, back=attempt.goes_on)
    if attempt.goes_on:
        _clear(work)
        return work, json.loads((work / ATTEMPT).read_text())["started"]
    store.begin(run, stage)
    started = datetime.now().isoformat(timespec="seconds", sep=" ")
    content = {"started": started, "made_of": asdict(made_of)}
    with writing(work, FREE):
        write_text(work / ATTEMPT, json.dumps(content, indent=2, sort_keys=True) + "\n")
    return work, started


def _exchange(work: Path, aside: Path, *, back: bool) -> None:
    """Set the attempt at work aside; with `back` the one there takes its place."""
    third = aside.with_name(f"{aside.name}{BESIDE}")
    with writing(work, FREE):
        remove(third)
        if back:
            aside.rename(third)
        remove(aside)
        if work.exists():
            work.rename(aside)
        if back:
            third.rename(work)


def _clear(work: Path) -> None:
    """Nothing that the earlier attempt said of itself may be taken for the word of this one."""
    with writing(work, FREE):
        for pattern in STALE:
            for path in work.glob(pattern):
                remove(path)


def _whole(work: Path, made_of: Fingerprint) -> StageManifest | None:
    """The manifest of a stage whose publication was cut before the last rename."""
    try:
        manifest = verified(work)
    except Mendable:
        raise
    except Refusal:
        return None
    return manifest if made_of.equals(manifest) else None


def _read(path: Path) -> Fingerprint | None:
    """Return what an attempt is made of; None where it is not there, or does not say it."""
    try:
        with reading(path):
            return Fingerprint(**load_json(path)["made_of"]) if path.is_file() else None
    except (ValueError, TypeError, KeyError):
        return None

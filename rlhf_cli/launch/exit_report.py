"""Why a run of workers ended: one reason out of what each of them left.

A process that was killed, or failed for a reason of its own, explains the others, whose connections
broke because of it; without one, those that hang explain each other.
"""

import json
import re
import signal
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rlhf_cli.launch.memory import needs_less

INTERRUPTED, HUNG = 130, 75  # exit codes of a worker: asked to stop, ended by its watchdog
TAIL = 15
BROKEN = re.compile(
    r"Dist(Backend|Network|Store)?Error|gloo|nccl|connection (was )?(closed|reset)|broken pipe",
    re.I,
)
FRAMES = re.compile(r"\s*$|frame #\d+: |<omitting python frames>|Exception raised from ")


@dataclass(slots=True, kw_only=True)
class Outcome:
    """code: 0, or a failing worker's exit code, negative for a signal. interrupted: it was asked to stop.

    reason: why it failed, one line. traceback: the file with more. saved: what a stopped stage says.
    tail: the last lines that the failing worker wrote, when nobody saw them.
    """

    code: int
    interrupted: bool
    reason: str | None = None
    traceback: str | None = None
    saved: str | None = None
    tail: list[str] | None = None


@dataclass(slots=True, kw_only=True)
class Ending:
    """One worker's end. told: the parent ended it. failure, hang: what it left, if anything.

    out_of_memory: the kernel has ended processes meanwhile because memory ran out.
    """

    rank: int
    code: int
    told: bool
    failure: dict | None
    hang: dict | None
    traceback: str
    tail: list[str]
    out_of_memory: bool = False

    @property
    def weight(self) -> int:
        """The lower, the more it explains. Nobody is killed, or fails, because a neighbour is gone,
        but connections break and NCCL aborts."""
        if self.told or self.code == 0:
            return 9
        if self.code == INTERRUPTED:
            return 5
        if self.code == HUNG:
            return 3
        if self.failure and self.code in (1, -signal.SIGABRT):
            return 4 if self.failure["broken"] else 1
        if self.code < 0:
            return 2 if self.code == -signal.SIGABRT else 0
        return 1

    @property
    def reason(self) -> str:
        if self.failure and self.code in (1, -signal.SIGABRT):
            return self.failure["reason"]
        if self.code < 0:
            memory = f": memory ran out; {needs_less(None)}"
            return f"killed by signal {-self.code}{memory if self._ran_out else ''}"
        return f"its process ended with code {self.code}"

    @property
    def _ran_out(self) -> bool:
        return self.code == -signal.SIGKILL and self.out_of_memory


def failure_file(folder: Path, rank: int) -> Path:
    return folder / (f"failure-{rank}.json" if rank else "failure.json")


def traceback_file(folder: Path, rank: int) -> Path:
    return folder / (f"traceback-{rank}.txt" if rank else "traceback.txt")


def hang_file(folder: Path, rank: int) -> Path:
    return folder / "ranks" / f"rank-{rank}.json"


def left_behind(
    folder: Path, rank: int, code: int, *, told: bool, out_of_memory: bool = False
) -> Ending:
    """What rank `rank` left in the work folder."""
    return Ending(
        rank=rank,
        code=code,
        told=told,
        failure=_read(failure_file(folder, rank)),
        hang=_read(hang_file(folder, rank)),
        traceback=str(traceback_file(folder, rank)),
        tail=_tail(folder / "ranks" / f"rank-{rank}.log"),
        out_of_memory=out_of_memory,
    )


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # not there, or cut off with its process
        return None


def _tail(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 16384))
        lines = stream.read().decode(errors="replace").splitlines()
    return [line for line in lines if not FRAMES.match(line)][-TAIL:]


def judge(
    endings: list[Ending], *, interrupted: bool, timeout: float, lost: tuple[str, ...] = ()
) -> Outcome:
    """One outcome for all workers. lost: what to say of machines that are gone."""
    worst = min(endings, key=lambda e: e.weight)
    saved = [e.failure["reason"] for e in endings if e.failure and e.failure.get("saved")]
    if not lost and all(e.code == 0 for e in endings):  # also when it was too late to stop
        return Outcome(code=0, interrupted=interrupted)
    if interrupted or (worst.weight == 5 and not lost):
        return Outcome(code=INTERRUPTED, interrupted=interrupted, saved=saved[0] if saved else None)
    if worst.weight > 2 and lost:
        return Outcome(code=1, interrupted=False, reason="; ".join(lost))
    if worst.code == HUNG:
        return Outcome(code=HUNG, interrupted=False, reason=hang_reason(endings, timeout))
    return _failed(worst, endings)


def _failed(worst: Ending, endings: list[Ending]) -> Outcome:
    """Which rank, how it ended, its reason; what rank 0 says too needs no rank."""
    everyone = any(e.rank == 0 and e.reason == worst.reason and not e.told for e in endings)
    culprit = next(e for e in endings if e.rank == 0) if everyone else worst
    who = f"rank {culprit.rank}{' was ' if culprit.reason.startswith('killed') else ': '}"
    expected = bool(culprit.failure and culprit.failure["expected"])
    plain = len(endings) == 1 or (everyone and culprit.code > 0)
    return Outcome(
        code=culprit.code,
        interrupted=False,
        reason=culprit.reason if plain else who + culprit.reason,
        traceback=culprit.traceback if culprit.failure and not expected else None,
        tail=None if expected else culprit.tail,
    )


def hang_reason(endings: list[Ending], timeout: float) -> str:
    """Who waits where. Those outside a collective come first: the others wait for them."""
    told = sorted(endings, key=lambda e: (_standing(e, timeout), e.rank))
    parts = []
    for (_, one, many, rest), group in groupby(told, key=lambda e: _standing(e, timeout)):
        ranks = [str(e.rank) for e in group]
        who = f"rank {ranks[0]} {one}" if len(ranks) == 1 else f"ranks {', '.join(ranks)} {many}"
        parts.append(f"{who} {rest}")
    return f"no progress for {timeout:g} s: {'; '.join(parts)}"


def _standing(ending: Ending, timeout: float) -> tuple[int, str, str, str]:
    """(order, verb, verb of several, the rest) for one worker."""
    if (hang := ending.hang) is None:
        return 1, "does", "do", "not answer"
    place = f"({hang['where']}, {hang['doing']})"
    if hang["collective"]:
        return 3, "waits", "wait", f"in {hang['collective']} {place}"
    if hang["since"] < timeout / 2:
        return 2, "is", "are", f"at work {place}"
    return 0, "is", "are", f"in no collective {place}"

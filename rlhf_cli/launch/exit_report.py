"""Why a run of workers ended: one reason out of the reports that each of them left.

A worker that was killed, or failed for a reason of its own, explains the others, whose connections
broke because of it; without one, the workers that hang explain each other.
"""

import json
import re
import signal
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from pathlib import Path

from rlhf_cli.artifacts.layout import WorkFolder
from rlhf_cli.config.errors import ExitCode
from rlhf_cli.launch.memory import memory_remedy

TAIL_LINES, TAIL_BYTES = 15, 16384
BROKEN_CONNECTION = re.compile(
    r"Dist(Backend|Network|Store)?Error|gloo|nccl|connection (was )?(closed|reset)|broken pipe",
    re.I,
)
CPP_FRAMES = re.compile(r"\s*$|frame #\d+: |<omitting python frames>|Exception raised from ")


class Cause(IntEnum):
    """How well a worker's end explains the run's: the lowest is the likeliest root cause.

    A lost peer causes broken connections and NCCL aborts, never a kill or a failure of another kind.
    """

    KILLED = 0
    FAILED = 1
    ABORTED = 2
    HUNG = 3
    BROKEN_CONNECTION = 4
    INTERRUPTED = 5
    NONE = 6  # finished, or terminated by the parent


@dataclass(slots=True, kw_only=True)
class RunResult:
    """code: 0, or a failing worker's exit code, negative for a signal. interrupted: it was asked to stop.

    reason: why it failed, one line. traceback: the file with more. saved: the message of a stage that
    has saved and stopped. log_tail: the last lines of the failing worker's log, which was not printed.
    """

    code: int
    interrupted: bool
    reason: str | None = None
    traceback: str | None = None
    saved: str | None = None
    log_tail: list[str] | None = None

    @property
    def was_stopped(self) -> bool:
        """Return whether a request to stop ended it."""
        return self.interrupted or self.code == ExitCode.INTERRUPTED

    @property
    def explanation(self) -> str:
        """Return why the workers ended, at least their exit code."""
        return self.reason or f"ended with code {self.code}"


@dataclass(slots=True, kw_only=True)
class WorkerExit:
    """How one worker ended. terminated: by the parent. failure, hang: its reports, where it left any.

    out_of_memory: the kernel has killed processes during the run because memory ran out.
    """

    rank: int
    code: int
    terminated: bool
    failure: dict | None
    hang: dict | None
    traceback: str
    log_tail: list[str]
    out_of_memory: bool = False

    @property
    def cause(self) -> Cause:
        if self.terminated or self.code == ExitCode.OK:
            return Cause.NONE
        if self.code == ExitCode.INTERRUPTED:
            return Cause.INTERRUPTED
        if self.code == ExitCode.HUNG:
            return Cause.HUNG
        if report := self._own_report:
            return Cause.BROKEN_CONNECTION if report["broken"] else Cause.FAILED
        if self.code < 0:
            return Cause.ABORTED if self.code == -signal.SIGABRT else Cause.KILLED
        return Cause.FAILED

    @property
    def reason(self) -> str:
        if report := self._own_report:
            return report["reason"]
        if self.code < 0:
            ran_out = self.code == -signal.SIGKILL and self.out_of_memory
            memory = f": memory ran out; {memory_remedy(None)}" if ran_out else ""
            return f"killed by signal {-self.code}{memory}"
        return f"its process ended with code {self.code}"

    @property
    def _own_report(self) -> dict | None:
        """Return its report of this end: a library may abort after the report was written."""
        return self.failure if self.code in (ExitCode.FAILURE, -signal.SIGABRT) else None


def read_exit(
    work: WorkFolder, rank: int, code: int, *, terminated: bool, out_of_memory: bool = False
) -> WorkerExit:
    """Return how a worker ended, with the reports it left in the work folder."""
    return WorkerExit(
        rank=rank,
        code=code,
        terminated=terminated,
        failure=_read_json(work.failure(rank)),
        hang=_read_json(work.hang(rank)),
        traceback=str(work.traceback(rank)),
        log_tail=_read_tail(work.log(rank)),
        out_of_memory=out_of_memory,
    )


def _read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # not there, or cut off with its process
        return None


def _read_tail(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()
    return [line for line in lines if not CPP_FRAMES.match(line)][-TAIL_LINES:]


def run_result(
    exits: list[WorkerExit], *, interrupted: bool, timeout: float, lost: tuple[str, ...] = ()
) -> RunResult:
    """Return one result for all workers. lost: a message for every node that was lost."""
    root = root_cause(exits)
    if not lost and all(e.code == ExitCode.OK for e in exits):  # also when it was too late to stop
        return RunResult(code=ExitCode.OK, interrupted=interrupted)
    if interrupted or (root.cause is Cause.INTERRUPTED and not lost):
        saved = [e.failure["reason"] for e in exits if e.failure and e.failure.get("saved")]
        message = saved[0] if saved else None
        return RunResult(code=ExitCode.INTERRUPTED, interrupted=interrupted, saved=message)
    # A lost node causes hangs and broken connections here, but no kill and no other failure.
    if root.cause > Cause.ABORTED and lost:
        return RunResult(code=ExitCode.FAILURE, interrupted=False, reason="; ".join(lost))
    if root.code == ExitCode.HUNG:
        reason = hang_reason(exits, timeout)
        return RunResult(code=ExitCode.HUNG, interrupted=False, reason=reason)
    return _failure(root, exits)


def root_cause(exits: list[WorkerExit]) -> WorkerExit:
    """Return the exit that explains the others; the earliest of equal ones."""
    return min(exits, key=lambda e: e.cause)


def _failure(root: WorkerExit, exits: list[WorkerExit]) -> RunResult:
    """Return the failure with its rank, unless rank 0 failed for the same reason."""
    everyone = any(e.rank == 0 and e.reason == root.reason and not e.terminated for e in exits)
    shown = next(e for e in exits if e.rank == 0) if everyone else root
    who = f"rank {shown.rank}{' was ' if shown.reason.startswith('killed') else ': '}"
    expected = bool(shown.failure and shown.failure["expected"])
    is_plain = len(exits) == 1 or (everyone and shown.code > 0)
    return RunResult(
        code=shown.code,
        interrupted=False,
        reason=shown.reason if is_plain else who + shown.reason,
        traceback=shown.traceback if shown.failure and not expected else None,
        log_tail=None if expected else shown.log_tail,
    )


def hang_reason(exits: list[WorkerExit], timeout: float) -> str:
    """Return where every rank waits; ranks outside a collective first, because the others wait for them."""
    ordered = sorted(exits, key=lambda e: (_position(e, timeout), e.rank))
    parts = []
    for (_, one, many, rest), group in groupby(ordered, key=lambda e: _position(e, timeout)):
        ranks = [str(e.rank) for e in group]
        who = f"rank {ranks[0]} {one}" if len(ranks) == 1 else f"ranks {', '.join(ranks)} {many}"
        parts.append(f"{who} {rest}")
    return f"no progress for {timeout:g} s: {'; '.join(parts)}"


def _position(worker: WorkerExit, timeout: float) -> tuple[int, str, str, str]:
    """Return (order, singular verb, plural verb, rest of the sentence) for one worker."""
    if (hang := worker.hang) is None:
        return 1, "does", "do", "not answer"
    place = f"({hang['where']}, {hang['doing']})"
    if hang["collective"]:
        return 3, "waits", "wait", f"in {hang['collective']} {place}"
    if hang["since"] < timeout / 2:
        return 2, "is", "are", f"at work {place}"
    return 0, "is", "are", f"in no collective {place}"

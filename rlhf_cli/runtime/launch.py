"""A stage in a process of its own: its memory goes with it, and it never outlives its parent.

Ctrl-C reaches the child once (it saves and ends); a second Ctrl-C kills it.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1


@dataclass(slots=True, kw_only=True)
class Outcome:
    """code: the child's exit code, negative for a signal. interrupted: it was asked to stop."""

    code: int
    interrupted: bool


def run_worker(job: Path) -> Outcome:
    """Run one job file in a child process and wait for it."""
    child = subprocess.Popen(worker_command(job), env=_environment())
    with _forwarded(child) as signals:
        code = child.wait()
    return Outcome(code=code, interrupted=bool(signals))


def worker_command(job: Path) -> list[str]:
    """-P keeps files of the current folder from shadowing modules."""
    return [sys.executable, "-P", "-m", "rlhf_cli.worker", str(job)]


def _environment() -> dict[str, str]:
    """The child finds this very package, installed or not.

    Idle OpenMP threads sleep instead of spinning: with another busy process on the machine, spinning
    made a two-thread stage up to twenty times slower (docs/decisions.md).
    """
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    if "site-packages" not in PACKAGE_PARENT.parts:
        paths.append(str(PACKAGE_PARENT))
    found = {"OMP_WAIT_POLICY": "passive", **os.environ}
    return found | {"PYTHONPATH": os.pathsep.join(paths)} if paths else found


@contextmanager
def _forwarded(child: subprocess.Popen) -> Iterator[list[int]]:
    """Hand SIGINT, SIGTERM and SIGHUP to the child; the second one kills it."""
    received: list[int] = []

    def forward(number, frame):
        received.append(number)
        if child.poll() is None:
            child.kill() if len(received) > 1 else child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _heeded(signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heeded(*more: signal.Signals) -> list[signal.Signals]:
    """The signals that end us, less those that the caller switched off (nohup, background)."""
    ends = (signal.SIGINT, signal.SIGTERM, *more)
    return [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]


def die_with_parent(parent: int) -> None:
    """Linux: the kernel ends this process when `parent` goes, even by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit("the parent process is gone")


def interrupt_once() -> None:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt, later ones are ignored.

    A terminal's Ctrl-C arrives twice: from the terminal and from the parent.
    """
    heeded = _heeded()

    def stop(number, frame):
        for watched in heeded:
            signal.signal(watched, signal.SIG_IGN)
        raise KeyboardInterrupt

    for watched in heeded:
        signal.signal(watched, stop)

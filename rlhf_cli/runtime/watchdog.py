"""The watchdog: a thread that reports the stack position of a process without heartbeats.

`heartbeat` is called at every microbatch and every generated token. Before the first call, while data
and models are read, using the processor counts too; waiting for other processes does not. Several
processes are ended when one of them hangs; a single one is only warned about, once: it may be slow.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from rlhf_cli.artifacts.layout import WorkFolder
from rlhf_cli.config.errors import ExitCode
from rlhf_cli.config.printable import one_line

REPORT_TIME = 3.0  # seconds in which the other processes report where they are
BUSY = 0.05  # share of the time on a processor above which a process computes
PACKAGE = __name__.partition(".")[0]
COLLECTIVES = ("torch.distributed", "deepspeed.comm", f"{PACKAGE}.runtime.world")
# DeepSpeed's sharding starts its collectives first and waits for them later, on lines of its own; it is
# also in the middle of many stacks without a collective.
SHARDING = "deepspeed.runtime.zero"
BELOW_SHARDING = ("deepspeed.accelerator", "deepspeed.utils", "torch.cuda", "torch.utils")
UNNAMED = ("wrapper", "wrapped_fn", "<lambda>", "wait")
CALLEES = (f"{PACKAGE}.runtime", f"{PACKAGE}.worker")  # their callers are more informative

T = TypeVar("T")

# One process, one watchdog: like a logger's, its state is the module's (docs/decisions.md).
_beat: tuple[str] | None = None
_paused = False


def heartbeat(what: str) -> None:
    """Report progress, and what is being done."""
    global _beat
    _beat = (what,)  # a new object each time: the watchdog compares identities


def with_heartbeat(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield the items, with a heartbeat at each."""
    for item in items:
        heartbeat(what)
        yield item


@contextmanager
def paused(what: str) -> Iterator[None]:
    """Pause the watchdog: rank 0 writes or hashes large files, and the others wait for it."""
    global _paused
    heartbeat(what)
    _paused = True
    try:
        yield
    finally:
        _paused = False
        heartbeat(what)


def watch(folder: Path, rank: int, timeout: float, *, several: bool) -> None:
    """Start the thread that ends this process after `timeout` seconds without a heartbeat.

    several: whether there are other processes; a single one is warned about instead.
    """
    watcher = _Watcher(folder, rank, timeout, several)
    threading.Thread(target=watcher.run, name="watchdog", daemon=True).start()


class _Watcher:
    def __init__(self, folder: Path, rank: int, timeout: float, several: bool):
        self.folder, self.rank, self.timeout, self.several = folder, rank, timeout, several
        self.poll = min(1.0, timeout / 10)
        self.seen: tuple[str] | None = None
        self.idle = self.computed = 0.0
        self.reported = False

    def run(self) -> None:
        while True:
            before = time.monotonic()
            time.sleep(self.poll)
            # a process that was suspended (Ctrl-Z) and continued has not been idle
            self.check(min(time.monotonic() - before, 2 * self.poll))

    def check(self, elapsed: float) -> None:
        # Before the first heartbeat a process imports and reads for minutes: using the processor
        # counts.
        starts_up = _beat is None and self._computes(elapsed)
        if _beat is not self.seen or starts_up or _paused:
            self.seen, self.idle = _beat, 0.0
        else:
            self.idle += elapsed
        if self.several:
            self._among_others()
        elif self.idle >= self.timeout and not self.reported:
            self.reported = True
            at = self.position()
            found = f"no progress for {self.timeout:g} s, at {at['where']}, {at['doing']}"
            print(f"rlhf: {one_line(found)}", file=sys.stderr)  # noqa: T201

    def _computes(self, elapsed: float) -> bool:
        """Return whether this process has computed since the last check, spinning in a collective apart."""
        # A process may wait for the others by spinning, which uses the processor without any
        # progress.
        before, self.computed = self.computed, time.process_time()
        busy = self.computed - before > BUSY * elapsed
        return busy and self.position()["collective"] is None

    def _among_others(self) -> None:
        """Report the position when this process hangs or another one has reported; end one that hangs."""
        hangs = self.idle >= self.timeout
        if not self.reported and (hangs or self._another_hangs()):
            self._report()
        if hangs:
            # The rank at fault is often not the first to notice: the others get time to report,
            # too.
            time.sleep(REPORT_TIME)
            if _beat is self.seen:
                # sys.exit would end this thread only, and the main thread never returns from its
                # collective.
                os._exit(ExitCode.HUNG)

    def _another_hangs(self) -> bool:
        return WorkFolder(self.folder).has_hang()

    def _report(self) -> None:
        self.reported = True
        path = WorkFolder(self.folder).hang(self.rank)
        path.parent.mkdir(exist_ok=True)
        # Renamed when it is complete: another process may read it at any moment.
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.position()))
        beside.replace(path)

    def position(self) -> dict:
        """Return {rank, doing, collective | None, where, since} from the stacks of all threads."""
        frames = sys._current_frames()
        main = _stack(frames.pop(threading.main_thread().ident or 0, None))
        frames.pop(threading.get_ident(), None)
        others = [_stack(frame) for frame in frames.values()]  # backward passes run in one of them
        collective = next(filter(None, map(_collective, [main, *others])), None)
        return {
            "rank": self.rank,
            "doing": self.seen[0] if self.seen else "starting",
            "collective": collective,
            "where": _place(main),
            "since": round(self.idle, 1),
        }


def _stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of a stack, innermost first."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__") or ""


def _collective(stack: list[FrameType]) -> str | None:
    """Return the innermost function of a library of collectives, or of the sharding that waits for one."""
    found = [f for f in stack if _module(f).startswith(COLLECTIVES)]
    innermost = next((f for f in stack if not _module(f).startswith(BELOW_SHARDING)), None)
    if not found and innermost and _module(innermost).startswith(SHARDING):
        found = [f for f in stack if _module(f).startswith(SHARDING)]
    names = [f.f_code.co_name for f in found if f.f_code.co_name not in UNNAMED]
    return next((name for name in names if not name.startswith("_")), None)


def _place(stack: list[FrameType]) -> str:
    """Return the innermost line of this package, of a stage rather than of runtime/."""
    ours = [f for f in stack if _module(f).startswith(f"{PACKAGE}.")]
    shown = [f for f in ours if not _module(f).startswith(CALLEES)] or ours or stack
    if not shown:
        return "an unknown place"
    code = shown[0].f_code
    parts = Path(code.co_filename).parts
    inside = parts.index(PACKAGE) + 1 if PACKAGE in parts else -1
    return f"{Path(*parts[inside:])}:{shown[0].f_lineno} {code.co_name}"

"""Who hangs, and where: a thread that looks at the main one when it gives no sign of life.

`alive` is called at every microbatch and every generated token. Before the first call, while data and
models are read, a process that computes is alive, too; one that waits for others is not.
Several processes are ended when one of them hangs; one alone is only told of, once: it may be slow.
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

from rlhf_cli.config.printable import one_line
from rlhf_cli.runtime.verdict import HUNG, hang_file

WAIT = 3.0  # seconds that the other processes have to tell where they are
BUSY = 0.05  # of the time on a processor: the process computes, it does not wait
PACKAGE = __name__.partition(".")[0]
COLLECTIVES = ("torch.distributed", "deepspeed.comm", f"{PACKAGE}.runtime.world")
# DeepSpeed's sharding starts its collectives first and waits for them later, on lines of its own;
# it also stands in the middle of the stack of much that is no collective.
SHARDING = "deepspeed.runtime.zero"
BELOW_SHARDING = ("deepspeed.accelerator", "deepspeed.utils", "torch.cuda", "torch.utils")
UNTOLD = ("wrapper", "wrapped_fn", "<lambda>", "wait")
PLUMBING = (f"{PACKAGE}.runtime", f"{PACKAGE}.worker")  # whose callers say more than they do

T = TypeVar("T")

_sign: tuple[str] | None = None
_patient = False


def alive(what: str) -> None:
    """A sign of life, and what is being done."""
    global _sign
    _sign = (what,)  # a new object each time: the watcher asks for nothing else


def during(items: Iterable[T], what: str) -> Iterator[T]:
    """The items, with a sign of life at each."""
    for item in items:
        alive(what)
        yield item


@contextmanager
def unwatched(what: str) -> Iterator[None]:
    """Silence is no hang here: the main process writes or hashes large files, the others wait for it."""
    global _patient
    alive(what)
    _patient = True
    try:
        yield
    finally:
        _patient = False
        alive(what)


def watch(folder: Path, rank: int, timeout: float, *, several: bool) -> None:
    """Start the thread that ends this process after `timeout` seconds without a sign, if it has others."""
    watcher = _Watcher(folder, rank, timeout, several)
    threading.Thread(target=watcher.run, name="watchdog", daemon=True).start()


class _Watcher:
    def __init__(self, folder: Path, rank: int, timeout: float, several: bool):
        self.folder, self.rank, self.timeout, self.several = folder, rank, timeout, several
        self.poll = min(1.0, timeout / 10)
        self.seen: tuple[str] | None = None
        self.idle = self.computed = 0.0
        self.told = False

    def run(self) -> None:
        while True:
            before = time.monotonic()
            time.sleep(self.poll)
            # a process that was stopped itself (Ctrl-Z) and goes on has not been idle
            self.look(min(time.monotonic() - before, 2 * self.poll))

    def look(self, elapsed: float) -> None:
        starts_up = _sign is None and self._computes(elapsed)
        if _sign is not self.seen or starts_up or _patient:
            self.seen, self.idle = _sign, 0.0
        else:
            self.idle += elapsed
        if self.several:
            self._among_others()
        elif self.idle >= self.timeout and not self.told:
            self.told = True
            at = self.standing()
            found = f"no sign of life for {self.timeout:g} s, at {at['where']}, {at['doing']}"
            print(f"rlhf: {one_line(found)}", file=sys.stderr)  # noqa: T201

    def _computes(self, elapsed: float) -> bool:
        """Whether this process has worked since the last look. To spin in a collective is no work."""
        before, self.computed = self.computed, time.process_time()
        busy = self.computed - before > BUSY * elapsed
        return busy and self.standing()["collective"] is None

    def _among_others(self) -> None:
        """Tell where this process is when it hangs or another one says that it does."""
        hangs = self.idle >= self.timeout
        if not self.told and (hangs or self._another_hangs()):
            self._tell()
        if hangs:
            time.sleep(WAIT)
            if _sign is self.seen:
                os._exit(HUNG)

    def _another_hangs(self) -> bool:
        return any(self.folder.glob("ranks/rank-*.json"))

    def _tell(self) -> None:
        self.told = True
        path = hang_file(self.folder, self.rank)
        path.parent.mkdir(exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.standing()))
        beside.replace(path)

    def standing(self) -> dict:
        """{rank, doing, collective | None, where, since}: what the threads of Python are at."""
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
    """Innermost first."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__") or ""


def _collective(stack: list[FrameType]) -> str | None:
    """The innermost function of a collectives' library, or of the sharding that waits for one."""
    found = [f for f in stack if _module(f).startswith(COLLECTIVES)]
    innermost = next((f for f in stack if not _module(f).startswith(BELOW_SHARDING)), None)
    if not found and innermost and _module(innermost).startswith(SHARDING):
        found = [f for f in stack if _module(f).startswith(SHARDING)]
    names = [f.f_code.co_name for f in found if f.f_code.co_name not in UNTOLD]
    return next((name for name in names if not name.startswith("_")), None)


def _place(stack: list[FrameType]) -> str:
    """The innermost line of this package, of a stage rather than of the machinery below it."""
    ours = [f for f in stack if _module(f).startswith(f"{PACKAGE}.")]
    told = [f for f in ours if not _module(f).startswith(PLUMBING)] or ours or stack
    if not told:
        return "an unknown place"
    code = told[0].f_code
    parts = Path(code.co_filename).parts
    inside = parts.index(PACKAGE) + 1 if PACKAGE in parts else -1
    return f"{Path(*parts[inside:])}:{told[0].f_lineno} {code.co_name}"

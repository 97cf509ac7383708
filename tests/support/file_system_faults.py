"""A process that ends, or whose disk fails, at its n-th touch of the file system, or call of a kind."""

import errno
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

KILLED, TOLD, TRACE = 9, 1, 70
TOUCHES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def _is_touch(event: str, details: tuple) -> bool:
    if event == "open":
        return isinstance(details[2], int) and bool(details[2] & (os.O_WRONLY | os.O_RDWR))
    return event in TOUCHES


def _at_touch(number: int, act: Callable[[], None]) -> None:
    """Call `act` right before the `number`-th change of the file system."""
    touches = 0

    def hook(event: str, details: tuple) -> None:
        nonlocal touches
        if _is_touch(event, details):
            touches += 1
            if touches == number:
                act()

    sys.addaudithook(hook)


# Every function of os that a call of the system hides behind.
CALLS = {
    "rename": ("rename", "replace"),
    "mkdir": ("mkdir",),
    "unlink": ("unlink", "remove", "rmdir"),
    "fsync": ("fsync",),
}


def at_call(kind: str) -> Callable[[int, Callable[[], None]], None]:
    """As `_at_touch`, but for one kind of call: (number, act) -> nothing, for the rest of the process."""

    def arm(number: int, act: Callable[[], None]) -> None:
        calls = 0

        def counted(call):
            def wrapped(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == number:
                    act()
                return call(*args, **kwargs)

            return wrapped

        for name in CALLS[kind]:
            setattr(os, name, counted(getattr(os, name)))

    return arm


def end() -> None:
    """As a kill does: at once, nothing is flushed or tidied."""
    os._exit(KILLED)


def fail_to_write() -> None:
    """As a broken disk does."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _fail() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _in_child(work: Callable[[], object]) -> int:
    """Exit code of a forked child that does `work`; what a UserError says goes to `told`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
        os._exit(0)
    except BaseException as error:
        told = getattr(error, "code", None) == TOLD and "\n" not in str(error)
        print(repr(error), file=sys.stderr)
        os._exit(TOLD if told else TRACE)


def killed(start: Callable[[], Path], work: Callable[[Path], object]) -> Iterator[Path]:
    """The folder that `start` made, after `work` on it was killed at its 1st, 2nd, .. last touch."""
    yield from every_instant(start, work, end, {KILLED})


def full(start: Callable[[], Path], work: Callable[[Path], object]) -> Iterator[Path]:
    """The same with a disk that is full at one moment: one line of a UserError with code 1, or passed."""
    yield from every_instant(start, work, _fail, {0, TOLD})


def every_instant(start, work, act, codes, *, arm=_at_touch, numbers=None) -> Iterator[Path]:
    """Yield the folder after `act` at each of `numbers`, all of them unless some are chosen."""
    number, last = 0, False
    for number in numbers or itertools.count(1):
        if last:
            break
        folder = start()
        total = folder / ".." / f"touches-{number}"
        total.unlink(missing_ok=True)

        def child(folder=folder, number=number, total=total):
            def reached():
                os.close(os.open(total, os.O_CREAT))
                act()

            arm(number, reached)
            work(folder)

        code = _in_child(child)
        last = not total.exists()
        assert code in (codes if not last else {0}), (number, code)
        if not last:
            yield folder
    assert numbers or number > 1

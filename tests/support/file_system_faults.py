"""A process that ends, or whose disk fails, at its n-th change of the file system or n-th call."""

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
    """Return a function like `_at_touch` for one kind of call."""

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
    """End the process like a kill, without flushing or cleaning up."""
    os._exit(KILLED)


def fail_to_write() -> None:
    """Raise the error of a broken disk."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _fail() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _in_child(work: Callable[[], object]) -> int:
    """Return the exit code of a forked child that calls `work` and prints UserErrors."""
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
    """Yield the folder of `start` after `work` on it was killed at its 1st, 2nd, .. last change."""
    yield from every_instant(start, work, end, {KILLED})


def full(start: Callable[[], Path], work: Callable[[Path], object]) -> Iterator[Path]:
    """Yield the same with a disk that is full at one change: a UserError or success."""
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

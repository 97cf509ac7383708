"""One run folder, one writer. The lock ends with the process that holds it, however it ends."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from stat import S_ISREG

from rlhf_cli.artifacts.manifest import Refusal
from rlhf_cli.artifacts.store import FREE, writing


@contextmanager
def locked(run: Path, command: str) -> Iterator[None]:
    """Hold the run folder, or refuse and say who holds it."""
    with writing(run, "make it writable, or choose another runs_dir=..."):
        run.mkdir(parents=True, exist_ok=True)
    handle = _open(run / ".lock")
    try:
        with writing(run, FREE):
            _acquire(handle, run)
            _sign(handle, command)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """Return a handle of the lock file, or refuse what is none: it will be written into."""
    with writing(path, "make it writable, or choose another runs_dir=..."):
        if path.is_symlink():
            raise Refusal(f"{path} is a link, and no lock file", "remove it")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    found = os.fstat(handle)
    if not S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise Refusal(f"{path} is another file too, and no lock file", "remove it")
    return handle


def _acquire(handle: int, run: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        found = f"{run} is in use by {_holder(handle)}"
        raise Refusal(found, "wait for it, or choose another name=...") from error


def _sign(handle: int, command: str) -> None:
    started = datetime.now().isoformat(timespec="seconds", sep=" ")
    who = {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "command": command}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(who).encode(), 0)


def _holder(handle: int) -> str:
    try:
        who = json.loads(os.pread(handle, 4096, 0))
        return f"process {who['pid']} on {who['host']} (since {who['started']}: {who['command']})"
    except (ValueError, KeyError):
        return "another process"

"""The lock of a run folder: one writer at a time. It ends with its process, however that ends."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISREG

from rlhf_cli.artifacts.layout import LOCK
from rlhf_cli.artifacts.manifest import ArtifactError
from rlhf_cli.artifacts.store import FREE, write_errors

ATTEMPTS, PAUSE = 3, 0.05  # `holder` takes the lock too, for an instant


@contextmanager
def locked(run: Path, command: str) -> Iterator[None]:
    """Hold the lock of the run folder, or refuse with the process that holds it."""
    with write_errors(run, "make it writable, or choose another runs_dir=..."):
        run.mkdir(parents=True, exist_ok=True)
    handle = _open(run / LOCK)
    try:
        with write_errors(run, FREE):
            _acquire(handle, run)
            _write_holder(handle, command)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """Return a handle of the lock file; refuse a link or another file, because it will be overwritten."""
    with write_errors(path, "make it writable, or choose another runs_dir=..."):
        if path.is_symlink():
            raise ArtifactError(f"{path} is a link, and no lock file", "remove it")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    found = os.fstat(handle)
    if not S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise ArtifactError(f"{path} is another file too, and no lock file", "remove it")
    return handle


def _acquire(handle: int, run: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if attempt == ATTEMPTS:
                found = f"{run} is in use by {_holder(handle)}"
                raise ArtifactError(found, "wait for it, or choose another name=...") from error
            time.sleep(PAUSE)


def _write_holder(handle: int, command: str) -> None:
    started = datetime.now().isoformat(timespec="seconds", sep=" ")
    who = {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "command": command}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(who).encode(), 0)


@dataclass(slots=True, kw_only=True, frozen=True)
class Holder:
    """The process that holds a run folder."""

    pid: int
    host: str
    started: str
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.started}: {self.command})"


def holder(run: Path) -> Holder | str | None:
    """Return who holds the run folder: "another process" if it is unknown, None if no process does."""
    try:
        handle = os.open(run / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(handle)
    finally:
        os.close(handle)
    return None


def last_command(run: Path) -> str | None:
    """Return the command that last held the run folder; None where it is unknown."""
    try:
        return Holder(**json.loads((run / LOCK).read_text(encoding="utf-8"))).command
    except (OSError, ValueError, TypeError):
        return None


def _holder(handle: int) -> Holder | str:
    try:
        who = json.loads(os.pread(handle, 4096, 0))
        return Holder(**who)
    except (ValueError, TypeError):
        return "another process"

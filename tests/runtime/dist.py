"""A test body in several processes that talk to each other over gloo on this machine.

    run_processes(2, "tests.runtime.bodies:name", "an argument", timeout=120)

calls `name("an argument")` in two fresh processes with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
MASTER_ADDR and MASTER_PORT set; arguments travel as JSON. The body fails by raising.
"""

import json
import os
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).resolve().parents[2]
LINES = 40  # shown of a process that failed


def run_processes(num: int, body: str, *args, timeout: float = 120, folder: Path | None = None):
    """Run `body` in `num` processes; AssertionError with the last lines of those that failed.

    When one fails or the time is over, the others are ended. Logs lie in `folder`, or nowhere.
    """
    port = free_port()
    children = [_start(rank, num, port, body, args) for rank in range(num)]
    try:
        slow = _wait(children, time.monotonic() + timeout)
    finally:
        said = [_end(child) for child in children]
    if folder is not None:
        for rank, text in enumerate(said):
            (folder / f"rank{rank}.log").write_text(text)
    bad = [rank for rank, child in enumerate(children) if child.returncode != 0]
    if bad:
        shown = [f"--- rank {rank}\n" + _last(said[rank]) for rank in bad]
        why = f"not done after {timeout} s" if slow else "failed"
        raise AssertionError(f"{body} {why}\n" + "\n".join(shown))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(rank: int, num: int, port: int, body: str, args: tuple) -> subprocess.Popen:
    place = {
        "RANK": str(rank),
        "WORLD_SIZE": str(num),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(num),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(ROOT),
    }
    log = TemporaryFile("w+")  # not a pipe: nobody reads while we wait
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.dist", body, json.dumps(args)],
        env=os.environ | place,
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    child.log = log
    return child


def _wait(children: list[subprocess.Popen], deadline: float) -> bool:
    """Until all are done or one failed; True when the time is over."""
    while any(child.poll() is None for child in children):
        if any(child.returncode for child in children):
            time.sleep(1)  # the others may have something to say
            return False
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return False


def _end(child: subprocess.Popen) -> str:
    """What the process said; it is killed if it still runs."""
    if child.poll() is None:
        child.kill()
        child.wait()
    child.log.seek(0)
    text = child.log.read()
    child.log.close()
    return text


def _last(text: str) -> str:
    return "\n".join(text.splitlines()[-LINES:])


def main(body: str, args: str) -> None:
    module, name = body.split(":")
    getattr(import_module(module), name)(*json.loads(args))


if __name__ == "__main__":
    main(*sys.argv[1:])

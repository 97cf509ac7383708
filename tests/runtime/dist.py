"""A test body in several processes that talk to each other over gloo on this machine.

    run_processes(2, "tests.runtime.bodies:name", "an argument", timeout=120)

calls `name("an argument")` in two fresh processes with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
MASTER_ADDR and MASTER_PORT set; arguments travel as JSON. A body fails by raising.
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

from rlhf_cli.runtime.channel import listen_at
from rlhf_cli.runtime.crew import STORE_SOCKET

ROOT = Path(__file__).resolve().parents[2]
LINES = 40  # shown of a process that failed


def run_processes(num: int, body: str, *args, timeout: float = 120) -> None:
    """Run `body` in `num` processes; AssertionError with the last lines of those that failed.

    When one fails, or after `timeout` seconds, the others are ended.
    """
    with listen_at("127.0.0.1") as store:
        children = [_start(rank, num, store, body, args) for rank in range(num)]
    try:
        in_time = _wait(children, time.monotonic() + timeout)
        codes = [child.poll() for child in children]
    finally:
        said = [_end(child) for child in children]
    bad = [rank for rank, code in enumerate(codes) if code != 0 and (code or not in_time)]
    if bad:
        why = "failed" if in_time else f"was not done after {timeout:g} s"
        shown = [f"--- rank {rank}\n{_last(said[rank])}" for rank in bad]
        raise AssertionError(f"{body} {why}\n" + "\n".join(shown))


def _start(rank: int, num: int, store: socket.socket, body: str, args: tuple) -> subprocess.Popen:
    place = {
        "RANK": str(rank),
        "WORLD_SIZE": str(num),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(num),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.getsockname()[1]),
        STORE_SOCKET: str(store.fileno()),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(ROOT),
    }
    log = TemporaryFile("w+")  # noqa: SIM115 - not a pipe: nobody reads while we wait
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.dist", body, json.dumps(args)],
        env=os.environ | place,
        cwd=ROOT,
        pass_fds=[store.fileno()] if rank == 0 else [],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    child.log = log
    return child


def _wait(children: list[subprocess.Popen], deadline: float) -> bool:
    """Until all are done or one failed; False when the time is over."""
    while time.monotonic() < deadline:
        codes = [child.poll() for child in children]
        if any(codes):
            time.sleep(1)  # the others may have something to say
        if any(codes) or None not in codes:
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
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # as a worker leaves: without tearing down a group and its threads


if __name__ == "__main__":
    main(*sys.argv[1:])

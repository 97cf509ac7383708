"""A test body in several processes, connected by gloo on this machine.

    run_processes(2, "tests.support.distributed.training:name", "an argument", timeout=120)

calls `name("an argument")` in two fresh processes with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
MASTER_ADDR and MASTER_PORT set; arguments are passed as JSON. A body fails by raising. The processes
are forked from one that has done the imports (preloaded.py), which otherwise take half of the time.
"""

import json
import os
import socket
import sys
import time
import traceback
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from rlhf_cli.config.environment import STORE_SOCKET
from rlhf_cli.launch.channel import listen

LINES = 40  # shown of a process that failed
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["tests.support.distributed.preloaded"])


def run_processes(num: int, body: str, *args, timeout: float = 120) -> None:
    """Run `body` in `num` processes; AssertionError with the last lines of those that failed.

    When one fails, or after `timeout` seconds, the others are ended.
    """
    with TemporaryDirectory() as folder:
        logs = [Path(folder) / f"rank{rank}" for rank in range(num)]
        children = _start(num, body, args, logs)
        try:
            in_time = _wait(children, time.monotonic() + timeout)
            codes = [child.exitcode for child in children]
        finally:
            _end(children)
        said = [log.read_text() if log.exists() else "" for log in logs]
    bad = [rank for rank, code in enumerate(codes) if code != 0 and (code or not in_time)]
    if bad:
        why = "failed" if in_time else f"was not done after {timeout:g} s"
        shown = [f"--- rank {rank}\n{_last(said[rank])}" for rank in bad]
        raise AssertionError(f"{body} {why}\n" + "\n".join(shown))


def _start(num: int, body: str, args: tuple, logs: list[Path]) -> list[BaseProcess]:
    text = json.dumps(args)
    with listen("127.0.0.1") as store:
        port, children = store.getsockname()[1], []
        for rank in range(num):
            place = (rank, num, port, store if rank == 0 else None)
            child = FORKS.Process(target=_run, args=(place, body, text, logs[rank]), daemon=True)
            child.start()
            children.append(child)
    return children


def _run(
    place: tuple[int, int, int, socket.socket | None], body: str, args: str, log: Path
) -> None:
    """Run the body in this process with the variables of `place`; write all output to `log`."""
    rank, num, port, store = place
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(num),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(num),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if store is not None:
        os.environ[STORE_SOCKET] = str(store.fileno())
    module, name = body.split(":")
    code = 1
    try:
        getattr(import_module(module), name)(*json.loads(args))
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as a worker leaves: without tearing down a group and its threads


def _wait(children: list[BaseProcess], deadline: float) -> bool:
    """Wait until all are done or one failed; return False when the time is over."""
    while time.monotonic() < deadline:
        codes = [child.exitcode for child in children]
        if any(codes):
            time.sleep(1)  # the others may still write output
        if any(codes) or None not in codes:
            return True
        time.sleep(0.05)
    return False


def _end(children: list[BaseProcess]) -> None:
    for child in children:
        if child.exitcode is None:
            child.kill()
        child.join()


def _last(text: str) -> str:
    return "\n".join(text.splitlines()[-LINES:])

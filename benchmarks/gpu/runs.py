"""`rlhf run` from outside: its exit code, its seconds, and what its stages wrote down."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT

RUN = [sys.executable, "-m", "rlhf_cli", "run"]
TOLD = ("time/", "speed/", "mem/")


def timed(
    command: list[str], limit: float, env: dict[str, str] | None = None, *, whole: bool = False
) -> dict:
    """Run a command; its exit code (124: out of time), seconds, and the end of what it said.

    whole: out of time, everything that it started is ended with it; else it is asked to end.
    """
    began = time.monotonic()
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=whole,
        env=os.environ | {"PYTHONPATH": paths} | (env or {}),
    )
    try:
        said, code = process.communicate(timeout=limit)[0], process.returncode
    except subprocess.TimeoutExpired:
        said, code = stopped(process, whole=whole), 124
    return {"code": code, "seconds": round(time.monotonic() - began, 1), "said": said[-3000:]}


def stopped(process: subprocess.Popen, *, whole: bool) -> str:
    """What a process had said that would not end."""
    if whole:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.terminate()
    try:
        return process.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def told(folder: Path) -> dict:
    """A stage's steps and seconds, its peak memory, and what its last row says of time and speed."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in rows if "step" in row]
    if not rows:
        return {}
    peak = max(row.get("mem/peak_gib", 0) for row in rows)
    found = {"steps": len(rows), "seconds": rows[-1]["time"], "peak_gib": peak}
    return found | {name: x for name, x in rows[-1].items() if name.startswith(TOLD)}

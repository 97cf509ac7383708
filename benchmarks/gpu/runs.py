"""`rlhf run` as a command: its exit code, its seconds, and the metrics of its stages."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT

RUN = [sys.executable, "-m", "rlhf_cli", "run"]
PREFIXES = ("time/", "speed/", "mem/")


def timed(
    command: list[str], limit: float, env: dict[str, str] | None = None, *, whole: bool = False
) -> dict:
    """Run a command; return its exit code (124: out of time), seconds, and the end of its output.

    whole: at the time limit, all processes that it started are killed; else it is terminated.
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
        output, code = process.communicate(timeout=limit)[0], process.returncode
    except subprocess.TimeoutExpired:
        output, code = stopped(process, whole=whole), 124
    return {"code": code, "seconds": round(time.monotonic() - began, 1), "said": output[-3000:]}


def stopped(process: subprocess.Popen, *, whole: bool) -> str:
    """Stop a process; return its output."""
    if whole:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.terminate()
    try:
        return process.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def stage_figures(folder: Path) -> dict:
    """Return steps, seconds and peak memory of a stage, and time and speed of its last row."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in rows if "step" in row]
    if not rows:
        return {}
    peak = max(row.get("mem/peak_gib", 0) for row in rows)
    found = {"steps": len(rows), "seconds": rows[-1]["time"], "peak_gib": peak}
    return found | {name: x for name, x in rows[-1].items() if name.startswith(PREFIXES)}

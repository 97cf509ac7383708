"""`rlhf` in a process of its own, with real or fake stages, with one worker or several."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FAKE = CHECKOUT / "tests" / "support" / "fake_rlhf.py"
STAGE = "tests.support.fake_distributed_stage"
ALL = ("runtime=cpu", "stage=sft")
ENGINES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "OMP_NUM_THREADS",
)


def rlhf(folder: Path, *words: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "rlhf_cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def manifest(rlhf, stage: str, run: str = "default") -> dict:
    return json.loads((rlhf.folder / "runs" / run / stage / "manifest.json").read_text())


def done(rlhf, *words: str) -> str:
    found = rlhf("run", *words)
    assert found.returncode == 0, found.stderr
    return found.stdout


def refused(rlhf, *words: str, code: int = 2) -> str:
    found = rlhf("run", *words)
    assert found.returncode == code, found.stdout + found.stderr
    assert found.stderr.count("\n") == 1, found.stderr
    return found.stderr


def ran(output: str) -> list[str]:
    return [entry.split(":")[0] for entry in output.splitlines() if ": done in" in entry]


class Started:
    """A running command: .work is the work folder of its stage, .finish() waits for its end."""

    def __init__(self, folder: Path, *words: str, env: dict[str, str] | None = None):
        self.folder, self.work = folder, folder / "runs" / "default" / ".sft.work"
        kept = {k: v for k, v in os.environ.items() if k not in ENGINES}
        self.process = subprocess.Popen(
            [sys.executable, str(FAKE), STAGE, "run", *ALL, *words],
            cwd=folder, env={**kept, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200", **(env or {})},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=_accept_interrupts,
        )  # fmt: skip

    def ranks(self, count: int = 2) -> list[int]:
        """Return the process ids of the workers, once all are ready."""
        paths = [self.work / f"ready-{rank}" for rank in range(count)]
        wait_until(lambda: all(p.exists() for p in paths) or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()
        return [int(p.read_text()) for p in paths]

    def finish(self, timeout: float = 60) -> tuple[int, str, float]:
        """Return (exit code, stderr, seconds from now to its end)."""
        before = time.monotonic()
        try:
            self.out, errors = self.process.communicate(timeout=timeout)
        finally:
            self.process.kill()
        return self.process.returncode, errors, time.monotonic() - before

    def ended(self, *pids: int) -> tuple[int, str, float]:
        """Return `finish()`, and assert that these processes have ended."""
        found = self.finish()
        wait_until(lambda: not any(map(alive, pids)), timeout=2)
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


def two(folder: Path, mode: str, *words: str, **env: str) -> Started:
    """Start two workers on this machine."""
    more = ("runtime.num_processes=2", f"tracking.project={mode}", *words)
    return Started(folder, *more, env={"OMP_NUM_THREADS": "1", **env})


def two_nodes(
    folder: Path, mode: str, port: int, engine: str = "torchrun"
) -> tuple[Started, Started]:
    """Start the driver and a second node, both on this machine; the second node starts first."""
    words = ("runtime.num_processes=1", f"tracking.project={mode}", "runtime.timeout=20")
    other, driver = (
        Started(folder, *words, env={"GLOO_SOCKET_IFNAME": "lo", **PLACES[engine](node, str(port))})
        for node in ("1", "0")
    )
    return driver, other


PLACES = {
    "torchrun": lambda node, port: {
        "RANK": node, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    },
    "srun": lambda node, job: {
        "SLURM_NODEID": node, "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "127.0.0.[1,1]", "SLURM_JOB_ID": job, "SLURM_STEP_ID": "0",
    },
}  # fmt: skip


def _accept_interrupts() -> None:
    """Enable SIGINT and SIGHUP, which are ignored in the background and under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_until(holds, timeout: float = 60) -> None:
    until = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"

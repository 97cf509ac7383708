"""The worker processes of one node: started together, signalled together, ended together.

How each of them ended is reported as a WorkerExit, a plain value that can be sent to another node.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.artifacts.layout import WorkFolder
from rlhf_cli.config.environment import PARENT, STORE_SOCKET
from rlhf_cli.config.errors import ExitCode
from rlhf_cli.config.schema import Runtime
from rlhf_cli.launch.channel import LOOPBACK
from rlhf_cli.launch.exit_report import WorkerExit, read_exit
from rlhf_cli.launch.local_world import is_deepspeed
from rlhf_cli.launch.memory import oom_kills
from rlhf_cli.launch.signals import stop_signals_blocked

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
GRACE = 1.0  # seconds in which the other ranks may fail too, so that the first cause is seen
TERM_TIMEOUT = 3.0  # seconds between SIGTERM and SIGKILL
POLL = 0.05  # seconds between two looks at the workers
# Set by a launcher for its own children; the workers get ranks of their own.
LAUNCHER_VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR",
    "MASTER_PORT", "GROUP_RANK", "GROUP_WORLD_SIZE", "CROSS_RANK", "CROSS_SIZE",
)  # fmt: skip


@dataclass(slots=True, frozen=True, kw_only=True)
class LocalRanks:
    """The ranks first_rank .. first_rank + local_world_size - 1 of `world_size`, on this node.

    store: the socket that listens at master_addr:master_port, on the node of rank 0. It is opened
    before the workers start, so that no other process can take the port, and on one address only.
    """

    first_rank: int = 0
    local_world_size: int = 1
    world_size: int = 1
    master_addr: str = LOOPBACK
    master_port: int = 0
    store: socket.socket | None = None

    def environment(self, local_rank: int) -> dict[str, str]:
        """Return torch.distributed's variables for one worker; none when it is the only one."""
        if self.world_size == 1:
            return {}
        rank = self.first_rank + local_rank
        return {
            **({STORE_SOCKET: str(self.store.fileno())} if self.store and rank == 0 else {}),
            "RANK": str(rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
        }


class WorkerGroup:
    """The workers of one job on this node. terminated: the ranks that the parent has ended."""

    def __init__(self, job: Path, ranks: LocalRanks, runtime: Runtime):
        self.work, self.save_timeout = WorkFolder(job.parent), runtime.timeout
        self.exit_codes: dict[int, int] = {}  # in the order in which they ended
        self.terminated: set[int] = set()
        # The kernel only counts: kills above this number belong to this run.
        self.oom_kills = oom_kills()
        self.terminate_at = self.kill_at = float("inf")
        self.workers: dict[int, subprocess.Popen] = {}
        # Inherited by the workers, of which none has a handler yet: SIGUSR1 is ignored, stop signals
        # wait until the worker unblocks them.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        try:
            for local_rank in range(ranks.local_world_size):
                with stop_signals_blocked():
                    self.workers[ranks.first_rank + local_rank] = _start(
                        job, ranks, local_rank, runtime
                    )
        except BaseException:
            self.kill()
            raise
        finally:
            if ranks.store:
                ranks.store.close()  # rank 0 has a copy, which ends with it

    def poll(self) -> None:
        """Collect exit codes; after a failure terminate the others, first by SIGTERM, then by SIGKILL."""
        now = time.monotonic()
        for rank in self.running():
            code = self.workers[rank].poll()
            if code is not None:
                self.exit_codes[rank] = code
                if rank not in self.terminated:
                    self.schedule_termination(code)
        if now >= self.terminate_at and not self.terminated:
            self.terminated, self.kill_at = set(self.running()), now + TERM_TIMEOUT
            self.signal(signal.SIGTERM)
        if now >= self.kill_at:
            self.kill()

    def schedule_termination(self, code: int) -> None:
        """Give the others GRACE seconds after a failure, and the time to save after an interruption."""
        if code:
            wait = self.save_timeout if code == ExitCode.INTERRUPTED else GRACE
            self.terminate_at = min(self.terminate_at, time.monotonic() + wait)

    def terminate_soon(self) -> None:
        """Terminate all workers from the next poll on: something failed on another node."""
        self.terminate_at = min(self.terminate_at, time.monotonic())

    @property
    def has_failed(self) -> bool:
        """Return whether a worker has failed that the parent did not terminate."""
        return any(
            code not in (ExitCode.OK, ExitCode.INTERRUPTED) and rank not in self.terminated
            for rank, code in self.exit_codes.items()
        )

    def running(self) -> list[int]:
        """Return the ranks that have not ended."""
        return [rank for rank in self.workers if rank not in self.exit_codes]

    def signal(self, number: int) -> None:
        for rank in self.running():
            self.workers[rank].send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def exits(self) -> list[WorkerExit]:
        """Return how each worker ended, in the order in which they ended."""
        out_of_memory = (oom_kills() or 0) > (self.oom_kills or 0)
        return [
            read_exit(
                self.work, rank, code,
                terminated=rank in self.terminated, out_of_memory=out_of_memory,
            )
            for rank, code in self.exit_codes.items()
        ]  # fmt: skip


def worker_command(job: Path) -> list[str]:
    """Return the command of a worker; -P keeps files of the current folder from shadowing modules."""
    return [sys.executable, "-P", "-m", "rlhf_cli.worker", str(job)]


def _start(job: Path, ranks: LocalRanks, local_rank: int, runtime: Runtime) -> subprocess.Popen:
    """Start one worker; rank 0 writes to the terminal, every other rank to its log."""
    rank = ranks.first_rank + local_rank
    environment = _environment(ranks, local_rank, runtime)
    if rank == 0:
        passed = [ranks.store.fileno()] if ranks.store else []
        return subprocess.Popen(worker_command(job), env=environment, pass_fds=passed)
    path = WorkFolder(job.parent).log(rank)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as log:
        return subprocess.Popen(
            worker_command(job),
            # A worker that is killed or crashes in C code leaves what it wrote, and its stack.
            env=environment | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def _environment(ranks: LocalRanks, local_rank: int, runtime: Runtime) -> dict[str, str]:
    """Return the environment of a worker: this package on its path, installed or not, and its rank.

    Idle OpenMP threads sleep instead of spinning: with another busy process on the machine, spinning
    made a two-thread stage up to twenty times slower (docs/decisions.md).
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith("TORCHELASTIC_")
    }
    if is_deepspeed(os.environ):
        # DeepSpeed's launcher hides all GPUs but one from this process, and the workers need all.
        kept.pop("CUDA_VISIBLE_DEVICES", None)
    paths = [p for p in kept.get("PYTHONPATH", "").split(os.pathsep) if p]
    if "site-packages" not in PACKAGE_PARENT.parts:
        paths.append(str(PACKAGE_PARENT))
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    own = ranks.environment(local_rank) | {PARENT: str(os.getpid())}
    # Defaults first, then what the user has set, then what must be ours.
    return {"OMP_WAIT_POLICY": "passive", **_shared_defaults(ranks, runtime), **kept, **own}


def _shared_defaults(ranks: LocalRanks, runtime: Runtime) -> dict[str, str]:
    """Return defaults for several workers: an equal share of the cores, and the loopback on one node."""
    if ranks.world_size == 1:
        return {}
    threads = runtime.num_threads or max(1, _cores() // ranks.local_world_size)
    found = {"OMP_NUM_THREADS": str(threads)}
    if ranks.local_world_size == ranks.world_size:  # or gloo wants the host's name to resolve
        found["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    return found


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

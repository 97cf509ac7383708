"""The worker processes of one machine: started together, signalled together, ended together.

What became of each of them is told as `Ending`s, plain values that another machine can read too.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.config.schema import Runtime
from rlhf_cli.launch.channel import LOOPBACK
from rlhf_cli.launch.exit_report import INTERRUPTED, Ending, left_behind
from rlhf_cli.launch.memory import oom_kills

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
PARENT = "RLHF_PARENT"  # the environment variable that tells a worker who started it
STORE_SOCKET = "RLHF_STORE_SOCKET"  # tells rank 0 at which open socket it serves the others
GRACE = 1.0  # seconds that the others have to fail by themselves, so that the first cause is seen
LAST = 3.0  # seconds between SIGTERM and SIGKILL
POLL = 0.05
# What an engine tells its own children; ours are numbered anew.
FOREIGN = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR",
    "MASTER_PORT", "GROUP_RANK", "GROUP_WORLD_SIZE", "CROSS_RANK", "CROSS_SIZE",
)  # fmt: skip
DEEPSPEED = "CROSS_SIZE"  # set by its launcher, which also hides all GPUs but one from a process


@dataclass(slots=True, frozen=True, kw_only=True)
class Place:
    """The workers of this machine are ranks first .. first+here-1 of `world`; all meet at address:port.

    store: the socket that listens there, on the machine of rank 0. It is open from the start, so that
    nobody else can take the port, and on one address only.
    """

    first: int = 0
    here: int = 1
    world: int = 1
    address: str = LOOPBACK
    port: int = 0
    store: socket.socket | None = None

    def environment(self, index: int) -> dict[str, str]:
        """What worker `index` of this machine is told; nothing when it is alone in the world."""
        if self.world == 1:
            return {}
        serves = self.store and self.first + index == 0
        return {
            **({STORE_SOCKET: str(self.store.fileno())} if serves else {}),
            "RANK": str(self.first + index),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(index),
            "LOCAL_WORLD_SIZE": str(self.here),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


class Crew:
    """The workers of one job on this machine."""

    def __init__(self, job: Path, place: Place, runtime: Runtime):
        self.folder, self.patience = job.parent, runtime.timeout
        self.codes: dict[int, int] = {}  # in the order in which they ended
        self.told: set[int] = set()  # those that we ended
        self.oom_kills = oom_kills()
        self.end_at = self.kill_at = float("inf")
        self.workers: dict[int, subprocess.Popen] = {}
        signal.signal(
            signal.SIGUSR1, signal.SIG_IGN
        )  # inherited: it must not kill a starting worker
        try:
            for index in range(place.here):
                self.workers[place.first + index] = _start(job, place, index, runtime)
        except BaseException:
            self.kill()
            raise
        finally:
            if place.store:
                place.store.close()  # rank 0 has it now, and it ends with rank 0

    def step(self) -> None:
        """Notice who has ended; when one has failed, end the others, politely and then not."""
        now = time.monotonic()
        for rank in self.live():
            code = self.workers[rank].poll()
            if code is not None:
                self.codes[rank] = code
                if rank not in self.told:
                    self.expect_the_others(code)
        if now >= self.end_at and not self.told:
            self.told, self.kill_at = set(self.live()), now + LAST
            self.signal(signal.SIGTERM)
        if now >= self.kill_at:
            self.kill()

    def expect_the_others(self, code: int) -> None:
        """A failure leaves them a moment; one that stopped in order leaves them time to save."""
        if code:
            wait = self.patience if code == INTERRUPTED else GRACE
            self.end_at = min(self.end_at, time.monotonic() + wait)

    def hurry(self) -> None:
        """Something failed elsewhere: end all of them, from the next step on."""
        self.end_at = min(self.end_at, time.monotonic())

    @property
    def failing(self) -> bool:
        """One of them has failed by itself."""
        return any(
            code not in (0, INTERRUPTED) and rank not in self.told
            for rank, code in self.codes.items()
        )

    def live(self) -> list[int]:
        return [rank for rank in self.workers if rank not in self.codes]

    def signal(self, number: int) -> None:
        for rank in self.live():
            self.workers[rank].send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def endings(self) -> list[Ending]:
        """What became of each, first ended first."""
        ran_out = (oom_kills() or 0) > (self.oom_kills or 0)
        return [
            left_behind(self.folder, rank, code, told=rank in self.told, out_of_memory=ran_out)
            for rank, code in self.codes.items()
        ]


def worker_command(job: Path) -> list[str]:
    """-P keeps files of the current folder from shadowing modules."""
    return [sys.executable, "-P", "-m", "rlhf_cli.worker", str(job)]


def log_of(folder: Path, rank: int) -> Path:
    """Where a rank other than 0 writes its screen."""
    return folder / "ranks" / f"rank-{rank}.log"


def _start(job: Path, place: Place, index: int, runtime: Runtime) -> subprocess.Popen:
    rank = place.first + index
    environment = _environment(place, index, runtime)
    if rank == 0:
        passed = [place.store.fileno()] if place.store else []
        return subprocess.Popen(worker_command(job), env=environment, pass_fds=passed)
    path = log_of(job.parent, rank)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as log:
        return subprocess.Popen(
            worker_command(job),
            env=environment | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def _environment(place: Place, index: int, runtime: Runtime) -> dict[str, str]:
    """The child finds this very package, installed or not, and its own place among the others.

    Idle OpenMP threads sleep instead of spinning: with another busy process on the machine, spinning
    made a two-thread stage up to twenty times slower (docs/decisions.md).
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN and not name.startswith("TORCHELASTIC_")
    }
    if DEEPSPEED in os.environ:
        kept.pop("CUDA_VISIBLE_DEVICES", None)
    paths = [p for p in kept.get("PYTHONPATH", "").split(os.pathsep) if p]
    if "site-packages" not in PACKAGE_PARENT.parts:
        paths.append(str(PACKAGE_PARENT))
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    mine = place.environment(index) | {PARENT: str(os.getpid())}
    return {"OMP_WAIT_POLICY": "passive", **_shared_machine(place, runtime), **kept, **mine}


def _shared_machine(place: Place, runtime: Runtime) -> dict[str, str]:
    """Defaults of several processes: a fair share of the cores, and one machine talks over its loopback."""
    if place.world == 1:
        return {}
    threads = runtime.num_threads or max(1, _cores() // place.here)
    found = {"OMP_NUM_THREADS": str(threads)}
    if place.here == place.world:  # or gloo wants the host's name to resolve
        found["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    return found


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def forwarded(crew: Crew, tell: Callable[[int], None]) -> Iterator[list[int]]:
    """Hand SIGINT, SIGTERM and SIGHUP to the workers, the second one kills; SIGUSR1 is only handed on.

    tell: hands a signal to other machines. Yields the list of those received that end a run.
    """
    received: list[int] = []

    def stop(number, frame):
        received.append(number)
        again = len(received) > 1
        crew.kill() if again else crew.signal(number)
        tell(signal.SIGKILL if again else number)

    def save(number, frame):
        crew.signal(number)
        tell(number)

    before = {number: signal.signal(number, stop) for number in heeded()}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, save)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def heeded() -> list[signal.Signals]:
    """The signals that end us, less those that the caller switched off (nohup, background)."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]

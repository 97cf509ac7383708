"""A stage in processes of its own: their memory goes with them, and none outlives its parent.

One process, one for each GPU of this machine, or the same on several machines (nodes.py). Here is also
what a worker does about signals: the first stop is a request, and a stage that can save heeds it.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.printable import printable
from rlhf_cli.config.schema import Runtime
from rlhf_cli.launch.channel import LOOPBACK, listen_at
from rlhf_cli.launch.exit_report import Outcome, judge
from rlhf_cli.launch.rendezvous import Lead
from rlhf_cli.launch.worker_group import DEEPSPEED, PARENT, POLL, Crew, Place, forwarded, heeded

PR_SET_PDEATHSIG = 1
AGAIN = 2.0  # seconds: a terminal's Ctrl-C arrives twice, from the terminal and from the parent


class Stopped(KeyboardInterrupt):
    """A stage was asked to stop and has saved; the message says where: "saved at step 120"."""


@dataclass(slots=True)
class Interruption:
    """What the user has asked for. The stage that heeds it sets `save` back when it has saved."""

    stop: bool = False
    save: bool = False


_asked = Interruption()


def run_worker(job: Path, runtime: Runtime, *, lead: Lead | None = None) -> Outcome:
    """Run one job file in worker processes, here and on the machines that `lead` leads, to the end."""
    here = num_processes(runtime)
    place = lead.place(here) if lead else _this_machine(here)
    _forget(job.parent)
    if lead:
        lead.start(job, place)
    crew = Crew(job, place, runtime)
    with forwarded(crew, lead.signal if lead else lambda number: None) as received:
        while crew.live() or (lead and not lead.done):
            crew.step()
            if lead:
                lead.step(crew)
            time.sleep(POLL)
    endings = crew.endings() + (lead.endings if lead else [])
    lost = tuple(lead.lost) if lead else ()
    outcome = judge(endings, interrupted=bool(received), timeout=runtime.timeout, lost=lost)
    _tidy(outcome, job.parent)
    return outcome


def _this_machine(here: int) -> Place:
    if here == 1:
        return Place()
    store = listen_at(LOOPBACK)
    return Place(here=here, world=here, port=store.getsockname()[1], store=store)


def _forget(work: Path) -> None:
    """Nothing that an earlier attempt left may explain this one."""
    for left in (*work.glob("failure*.json"), *work.glob("traceback*.txt")):
        left.unlink()
    shutil.rmtree(work / "ranks", ignore_errors=True)


def _tidy(outcome: Outcome, work: Path) -> None:
    """A finished stage leaves no logs; of a failed one the last unseen words are shown."""
    if not outcome.code:
        shutil.rmtree(work / "ranks", ignore_errors=True)
    elif sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h")  # a killed process has left its progress bar's cursor hidden
    for line in outcome.tail or ():
        print(f"  | {printable(line)}", file=sys.stderr)  # noqa: T201


def num_processes(runtime: Runtime) -> int:
    """The workers of this machine; UserError when its GPUs do not suffice."""
    wanted, device = runtime.num_processes, runtime.device
    if wanted == 1 or device not in ("auto", "cuda"):
        if (wanted or 1) > 1 and device != "cpu":
            raise UserError(
                f"runtime.device={device} is one device, for runtime.num_processes=1: "
                "use runtime.device=auto"
            )
        return wanted or 1
    gpus = count_gpus()
    if wanted and wanted > gpus and (gpus or device == "cuda"):
        raise UserError(
            f"runtime.num_processes={wanted}, but this machine has {gpus} GPU{'s' * (gpus != 1)}: "
            "lower it, or use runtime=cpu"
        )
    return wanted or gpus or 1


def count_gpus() -> int:
    """The CUDA devices that a worker will see, found without torch."""
    if version("torch").endswith("+cpu"):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and DEEPSPEED not in os.environ:
        names = [name.strip() for name in visible.split(",")]
        ends = [i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
        return min(ends, default=len(names))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(row.startswith("GPU ") for row in listed.stdout.splitlines())


def die_with_parent() -> None:
    """Linux: the kernel ends this process when its parent goes, even by kill -9.

    At once: the lock of the run folder went with the parent, so nothing may write there any more.
    """
    parent = os.environ.get(PARENT)
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            sys.exit("the parent process is gone")


def interrupt_once() -> None:
    """The first stop raises KeyboardInterrupt, later ones are ignored; so is SIGUSR1."""
    watched = heeded()

    def stop(number, frame):
        for other in watched:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in watched:
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def heed() -> Interruption:
    """From now on signals are requests: a stop to save and end, SIGUSR1 to save and go on.

    A second stop more than AGAIN seconds after the first raises KeyboardInterrupt.
    """
    since = float("inf")

    def stop(number, frame):
        nonlocal since
        if _asked.stop and time.monotonic() - since > AGAIN:
            raise KeyboardInterrupt
        since = min(since, time.monotonic())
        _asked.stop = True

    def save(number, frame):
        _asked.save = True

    for number in heeded():
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, save)
    return _asked


def interruption() -> Interruption:
    """What was asked for since `heed`."""
    return _asked

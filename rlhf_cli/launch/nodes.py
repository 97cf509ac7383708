"""Several machines for one run: which one this is, and what those do that do not drive.

An engine (torchrun, the DeepSpeed launcher, srun, or anything that sets RANK and WORLD_SIZE) starts the
same command once on every node. Node 0 drives: it plans, locks, prints and publishes. The others
start their workers when it says so. Stages meet on disk, so all nodes see the same run folder.
"""

import ctypes
import hashlib
import json
import os
import queue
import random
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rlhf_cli.config.compose import freeze
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import flatten
from rlhf_cli.config.schema import Config, Runtime
from rlhf_cli.launch.rendezvous import Lead, Link, Meeting, join
from rlhf_cli.launch.worker_group import POLL, Crew, Place, forwarded
from rlhf_cli.launch.workers import PR_SET_PDEATHSIG, num_processes

SEEN = 60.0  # seconds until files that the driver wrote must be visible here
ONE_EACH = "every node needs one `rlhf run`, which starts the workers itself:"

_lead: Lead | None = None


class EndedElsewhere(UserError):
    """The run failed; node 0 says why. `code` is the exit code of the command."""

    def __init__(self, message: str, *, code: int):
        super().__init__(message)
        self.code = code


def lead() -> Lead | None:
    """The other nodes, on the one that drives them; None on a machine alone."""
    return _lead


@contextmanager
def assembled(cfg: Config) -> Iterator[bool]:
    """Whether this machine drives the run: always when alone. Otherwise it has followed, to the end."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # "save": nothing to do while no stage runs
    meeting = found(os.environ, cfg.name, Path(cfg.runs_dir))
    if meeting is None:
        yield True
    elif meeting.rank:
        _die_with_engine()
        _follow(meeting, cfg)
        yield False
    else:
        _die_with_engine()
        with _leading(meeting, cfg.runtime):
            yield True


@contextmanager
def _leading(meeting: Meeting, runtime: Runtime) -> Iterator[None]:
    global _lead
    _lead, code = Lead(meeting, runtime.timeout), 1
    try:
        yield
        code = 0
    except UserError as error:
        code = getattr(error, "code", code)
        raise
    finally:
        _lead.close(code=code)
        _lead = None


def _die_with_engine() -> None:
    """What the engine started ends with it, even when it is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _follow(meeting: Meeting, cfg: Config) -> None:
    """Do what node 0 orders until it ends or is gone."""
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    link = join(meeting, num_processes(cfg.runtime), inbox, cfg.runtime.timeout)
    try:
        while (order := inbox.get()[1]) and order["do"] != "end":
            if order["do"] == "start":
                _work(order, meeting, cfg, link, inbox)
    finally:
        link.close()
    if order is None:
        raise EndedElsewhere(f"node {meeting.rank}: node 0 is gone", code=1)
    if order["code"]:
        told = f"node {meeting.rank}: the run did not finish; node 0 says why"
        raise EndedElsewhere(told, code=order["code"])


def _work(order: dict, meeting: Meeting, cfg: Config, link: Link, inbox: queue.SimpleQueue) -> None:
    """Run this node's workers for one stage and report what became of them."""
    job = Path(order["job"])
    if why := refusal(job, order["texts"], cfg):
        link.send(said="refused", why=why)
        return
    here = order["here"]
    place = Place(
        first=meeting.rank * here, here=here, world=order["world"],
        address=meeting.address, port=order["port"],
    )  # fmt: skip
    crew = Crew(job, place, cfg.runtime)
    told = False
    with forwarded(crew, lambda number: None):
        while crew.live():
            crew.step()
            _obey(inbox, crew)
            if crew.failing and not told:
                link.send(said="failing")
                told = True
            time.sleep(POLL)
    link.send(said="ended", endings=[asdict(ending) for ending in crew.endings()])


def _obey(inbox: queue.SimpleQueue, crew: Crew) -> None:
    """Orders that come while the workers work; without node 0 they end."""
    while not inbox.empty():
        _, order = inbox.get()
        if order is None:
            inbox.put((0, None))  # _follow ends with it
            crew.hurry()
            return
        if order["do"] == "signal":
            crew.signal(order["number"])
        elif order["do"] == "stop":
            crew.hurry()


def refusal(job: Path, texts: dict[str, str], cfg: Config) -> str | None:
    """Why this node does not start node 0's job: it lies elsewhere, or is not what was asked for here."""
    folder = Path(cfg.runs_dir) / cfg.name
    if not job.resolve().is_relative_to(folder.resolve()):
        return f"{job} is not inside {folder}"
    if key := _differing(json.loads(texts["config.json"]), freeze(cfg)):
        return f"{key} differs from node 0's: start the same command on every node"
    if not _visible(job.parent, texts):
        return f"{job} is not visible here: all nodes share a file system"
    return None


def _differing(theirs: dict, ours: dict) -> str | None:
    """A key whose values differ; the date is node 0's, which may have begun on another day."""
    one, two = flatten(theirs), flatten(ours)
    keys = [key for key in one | two if key != "data.date" and one.get(key) != two.get(key)]
    return keys[0] if keys else None


def _visible(folder: Path, texts: dict[str, str]) -> bool:
    """Wait until the files that the driver wrote are seen here as it wrote them."""
    until = time.monotonic() + SEEN
    while time.monotonic() < until:
        try:
            if all((folder / name).read_text() == text for name, text in texts.items()):
                return True
        except OSError:
            pass
        time.sleep(0.2)
    return False


def found(env: Mapping[str, str], name: str, runs_dir: Path) -> Meeting | None:
    """This machine among those that an engine has started, None when it is alone."""
    local = int(env.get("LOCAL_WORLD_SIZE") or env.get("LOCAL_SIZE") or 1)
    if local > 1:
        raise UserError(
            f"{ONE_EACH} use --nproc-per-node 1 (DeepSpeed: slots=1) and runtime.num_processes={local}"
        )
    if int(env.get("WORLD_SIZE") or 1) > 1:
        return _by_rank(env, name, runs_dir)
    if int(env.get("SLURM_STEP_NUM_NODES") or 1) > 1:
        return _by_slurm(env, name, runs_dir)
    return None


def _by_rank(env: Mapping[str, str], name: str, runs_dir: Path) -> Meeting:
    missing = [key for key in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not env.get(key)]
    if missing:
        raise UserError(
            f"WORLD_SIZE={env['WORLD_SIZE']} asks for several nodes, but {missing[0]} is not set: "
            "start with torchrun, or unset WORLD_SIZE"
        )
    word = f"{env['MASTER_PORT']} {env.get('TORCHELASTIC_RUN_ID')}"
    rank, count = int(env["RANK"]), int(env["WORLD_SIZE"])
    return _meeting(env, rank, count, env["MASTER_ADDR"], f"{word} {name}", runs_dir)


def _by_slurm(env: Mapping[str, str], name: str, runs_dir: Path) -> Meeting:
    """Inside srun: the first node of the step drives."""
    count, tasks = int(env["SLURM_STEP_NUM_NODES"]), int(env.get("SLURM_STEP_NUM_TASKS") or 0)
    if tasks > count:
        raise UserError(
            f"{ONE_EACH} srun has {tasks} tasks on {count} nodes, use --ntasks-per-node=1"
        )
    word = f"{env.get('SLURM_JOB_ID')} {env.get('SLURM_STEP_ID')}"
    first = first_host(env["SLURM_STEP_NODELIST"])
    return _meeting(env, int(env["SLURM_NODEID"]), count, first, f"{word} {name}", runs_dir)


def _meeting(
    env: Mapping[str, str], rank: int, count: int, address: str, word: str, runs_dir: Path
) -> Meeting:
    """All nodes derive the same ports: below those that systems hand out, so they are mostly free."""
    name = hashlib.sha256(f"{address} {word}".encode()).hexdigest()
    ports = random.Random(name).sample(range(20000, 32000), 5)
    if env.get("RLHF_PORT"):
        ports = [int(env["RLHF_PORT"])]
    return Meeting(
        rank=rank, count=count, address=env.get("RLHF_ADDRESS") or address, ports=tuple(ports),
        secret=runs_dir / f".nodes-{name[:16]}",
    )  # fmt: skip


def first_host(hosts: str) -> str:
    """The first name of SLURM's compressed list: "gpu[03-07,12],login" -> "gpu03"."""
    first = re.match(r"[^,\[]*(\[[^]]*\][^,\[]*)*", hosts)
    name = first.group() if first else hosts
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", name)

"""Several nodes for one run: which one this is, and what a node other than node 0 does.

A launcher (torchrun, DeepSpeed's, srun, or any that sets RANK and WORLD_SIZE) starts the same command
once on every node. Node 0 plans, locks, prints and publishes; the others start their workers when it
commands them to. Stages exchange files, so all nodes see the same run folder.
"""

import hashlib
import json
import queue
import random
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rlhf_cli.artifacts.layout import CONFIG
from rlhf_cli.config.environment import ADDRESS, PORT
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.config.keys import flatten
from rlhf_cli.config.schema import Runtime
from rlhf_cli.launch.coordinator import Coordinator
from rlhf_cli.launch.local_world import local_world_size
from rlhf_cli.launch.rendezvous import Connection, Rendezvous, join
from rlhf_cli.launch.signals import forward_signals, set_parent_death_signal
from rlhf_cli.launch.worker_group import POLL, LocalRanks, WorkerGroup

VISIBLE_TIMEOUT = 60.0  # seconds until files that node 0 has written must be visible here
ONE_PER_NODE = "every node needs one `rlhf run`, which starts the workers itself:"
PORTS = range(20000, 32000)  # below those that systems assign, so they are mostly free


class RunFailedElsewhere(UserError):
    """The run failed; node 0 prints the reason. `code` is the exit code of the command."""

    def __init__(self, message: str, *, code: int):
        super().__init__(message)
        self.code = code


@contextmanager
def coordinate(rendezvous: Rendezvous | None, runtime: Runtime) -> Iterator[Coordinator | None]:
    """Yield the coordinator of the other nodes, None on a single node; send them the end of the run."""
    if rendezvous is None:
        yield None
        return
    set_parent_death_signal(signal.SIGTERM)  # what the launcher started ends with it
    coordinator, code = Coordinator(rendezvous, runtime.timeout), ExitCode.FAILURE
    try:
        yield coordinator
        code = ExitCode.OK
    except UserError as error:
        code = error.code
        raise
    finally:
        # Whatever has happened: the other nodes wait for commands until this one arrives.
        coordinator.close(code=code)


def follow(rendezvous: Rendezvous, config: dict, runtime: Runtime) -> None:
    """Carry out node 0's commands until it ends or is lost. config: of this node's own command."""
    set_parent_death_signal(signal.SIGTERM)  # what the launcher started ends with it
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    connection = join(rendezvous, local_world_size(runtime), inbox, runtime.timeout)
    try:
        while (command := inbox.get()[1]) and command["do"] != "end":
            if command["do"] == "start":
                _run_stage(command, rendezvous, config, runtime, connection)
    finally:
        connection.close()
    if command is None:
        message = f"node {rendezvous.rank}: the connection to node 0 was lost"
        raise RunFailedElsewhere(message, code=ExitCode.FAILURE)
    if command["code"]:
        message = f"node {rendezvous.rank}: the run did not finish; node 0 prints the reason"
        raise RunFailedElsewhere(message, code=command["code"])


def _run_stage(
    command: dict, rendezvous: Rendezvous, config: dict, runtime: Runtime, connection: Connection
) -> None:
    """Run this node's workers for one stage and report how they ended."""
    job = Path(command["job"])
    if reason := start_refusal(job, command["texts"], config):
        connection.send(event="refused", reason=reason)
        return
    size = command["local_world_size"]
    ranks = LocalRanks(
        # Node 0 starts nothing unless all nodes have as many workers, so ranks follow from the
        # number.
        first_rank=rendezvous.rank * size, local_world_size=size, world_size=command["world_size"],
        master_addr=rendezvous.address, master_port=command["port"],
    )  # fmt: skip
    group, reported = WorkerGroup(job, ranks, runtime), False
    with forward_signals(group):
        while group.running():
            group.poll()
            _process_commands(connection.inbox, group)
            if group.has_failed and not reported:
                # At once, before this node's other workers have ended: node 0 stops all nodes.
                connection.send(event="failing")
                reported = True
            time.sleep(POLL)
    connection.send(event="ended", exits=[asdict(found) for found in group.exits()])


def _process_commands(inbox: queue.SimpleQueue, group: WorkerGroup) -> None:
    """Carry out commands that arrive while the workers run; without node 0 they are terminated."""
    while not inbox.empty():
        _, command = inbox.get()
        if command is None:
            inbox.put((0, None))  # `follow` ends at it
            group.terminate_soon()
            return
        if command["do"] == "signal":
            group.signal(command["number"])
        elif command["do"] == "stop":
            group.terminate_soon()


def start_refusal(job: Path, texts: dict[str, str], config: dict) -> str | None:
    """Return why this node does not start node 0's job; None if it is what this node's command asks for."""
    folder = Path(config["runs_dir"]) / config["name"]
    if not job.resolve().is_relative_to(folder.resolve()):
        return f"{job} is not inside {folder}"
    if key := _different_key(json.loads(texts[CONFIG]), config):
        return f"{key} differs from node 0's: start the same command on every node"
    if not _wait_until_visible(job.parent, texts):
        return f"{job} is not visible here: all nodes share a file system"
    return None


def _different_key(theirs: dict, ours: dict) -> str | None:
    """Return a key whose values differ; the date is node 0's, which may have begun on another day."""
    one, two = flatten(theirs), flatten(ours)
    keys = [key for key in one | two if key != "data.date" and one.get(key) != two.get(key)]
    return keys[0] if keys else None


def _wait_until_visible(folder: Path, texts: dict[str, str]) -> bool:
    """Wait until the files that node 0 has written can be read here with the same contents."""
    until = time.monotonic() + VISIBLE_TIMEOUT
    while time.monotonic() < until:
        try:
            # A network file system may show a new file late, or the old contents of a replaced one.
            if all((folder / name).read_text() == text for name, text in texts.items()):
                return True
        except OSError:
            pass
        time.sleep(0.2)
    return False


def find_rendezvous(env: Mapping[str, str], name: str, runs_dir: Path) -> Rendezvous | None:
    """Return this node among those a launcher has started, None on a single node.

    name: of the run, so that two runs of one job do not meet each other.
    """
    local = int(env.get("LOCAL_WORLD_SIZE") or env.get("LOCAL_SIZE") or 1)
    if local > 1:
        raise UserError(
            f"{ONE_PER_NODE} use --nproc-per-node 1 (DeepSpeed: slots=1) and runtime.num_processes={local}"
        )
    if int(env.get("WORLD_SIZE") or 1) > 1:
        return _from_torchrun(env, name, runs_dir)
    if int(env.get("SLURM_STEP_NUM_NODES") or 1) > 1:
        return _from_slurm(env, name, runs_dir)
    return None


def _from_torchrun(env: Mapping[str, str], name: str, runs_dir: Path) -> Rendezvous:
    missing = [key for key in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not env.get(key)]
    if missing:
        raise UserError(
            f"WORLD_SIZE={env['WORLD_SIZE']} asks for several nodes, but {missing[0]} is not set: "
            "start with torchrun, or unset WORLD_SIZE"
        )
    token = f"{env['MASTER_PORT']} {env.get('TORCHELASTIC_RUN_ID')} {name}"
    rank, count = int(env["RANK"]), int(env["WORLD_SIZE"])
    return _rendezvous(env, rank, count, env["MASTER_ADDR"], token, runs_dir)


def _from_slurm(env: Mapping[str, str], name: str, runs_dir: Path) -> Rendezvous:
    """Return the rendezvous inside srun: node 0 is the first node of the step."""
    count, tasks = int(env["SLURM_STEP_NUM_NODES"]), int(env.get("SLURM_STEP_NUM_TASKS") or 0)
    if tasks > count:
        raise UserError(
            f"{ONE_PER_NODE} srun has {tasks} tasks on {count} nodes, use --ntasks-per-node=1"
        )
    token = f"{env.get('SLURM_JOB_ID')} {env.get('SLURM_STEP_ID')} {name}"
    first = first_host(env["SLURM_STEP_NODELIST"])
    return _rendezvous(env, int(env["SLURM_NODEID"]), count, first, token, runs_dir)


def _rendezvous(
    env: Mapping[str, str], rank: int, count: int, address: str, token: str, runs_dir: Path
) -> Rendezvous:
    """Return the rendezvous of a token; all nodes derive the same ports from it."""
    digest = hashlib.sha256(f"{address} {token}".encode()).hexdigest()
    # The same random ports on every node without a message; several, as one may be in use.
    ports = [int(env[PORT])] if env.get(PORT) else random.Random(digest).sample(PORTS, 5)
    return Rendezvous(
        rank=rank, count=count, address=env.get(ADDRESS) or address, ports=tuple(ports),
        secret=runs_dir / f".nodes-{digest[:16]}",
    )  # fmt: skip


def first_host(hosts: str) -> str:
    """Return the first name of SLURM's compressed list: "gpu[03-07,12],login" -> "gpu03"."""
    first = re.match(r"[^,\[]*(\[[^]]*\][^,\[]*)*", hosts)
    name = first.group() if first else hosts
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", name)

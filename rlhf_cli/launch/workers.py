"""Run the workers of one stage to their end: on this node, and on the nodes of a coordinator.

A stage runs in processes of its own: their memory is freed with them, and none outlives its parent.
"""

import sys
import time
from pathlib import Path

from rlhf_cli.artifacts.layout import WorkFolder
from rlhf_cli.config.printable import printable
from rlhf_cli.config.schema import Runtime
from rlhf_cli.launch.channel import LOOPBACK, listen
from rlhf_cli.launch.coordinator import Coordinator
from rlhf_cli.launch.exit_report import RunResult, run_result
from rlhf_cli.launch.local_world import local_world_size
from rlhf_cli.launch.signals import forward_signals
from rlhf_cli.launch.worker_group import POLL, LocalRanks, WorkerGroup


def run_workers(
    job: Path, runtime: Runtime, *, coordinator: Coordinator | None = None
) -> RunResult:
    """Run one job file in workers, here and on the coordinator's other nodes, and wait for their end."""
    size, work = local_world_size(runtime), WorkFolder(job.parent)
    ranks = coordinator.assign_ranks(size) if coordinator else _one_node(size)
    # A report of an earlier attempt must not explain the end of this one.
    work.remove_reports()
    if coordinator:
        # Before our own workers: rank 0's store listens already, so those of other nodes can
        # connect.
        coordinator.start(job, ranks)
    group = WorkerGroup(job, ranks, runtime)
    with forward_signals(group, coordinator.signal if coordinator else None) as received:
        # Other nodes may report their workers' ends after ours have ended.
        while group.running() or (coordinator and not coordinator.done):
            group.poll()
            if coordinator:
                coordinator.poll(group)
            time.sleep(POLL)
    exits = group.exits() + (coordinator.exits if coordinator else [])
    lost = tuple(coordinator.lost_nodes) if coordinator else ()
    result = run_result(exits, interrupted=bool(received), timeout=runtime.timeout, lost=lost)
    _clean_up(result, work)
    return result


def _one_node(size: int) -> LocalRanks:
    if size == 1:
        return LocalRanks()
    # Handed to rank 0 as an open socket: a port that is looked up and closed again can be taken by
    # another process before the worker opens it.
    store = listen(LOOPBACK)
    port = store.getsockname()[1]
    return LocalRanks(local_world_size=size, world_size=size, master_port=port, store=store)


def _clean_up(result: RunResult, work: WorkFolder) -> None:
    """Remove the logs of a finished stage; print the end of a failed worker's log."""
    if not result.code:
        work.remove_ranks()
    elif sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h")  # a killed process has left its progress bar's cursor hidden
    for line in result.log_tail or ():
        print(f"  | {printable(line)}", file=sys.stderr)  # noqa: T201

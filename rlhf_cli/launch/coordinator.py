"""Node 0's side of a run on several nodes: commands to the other nodes, and their reports."""

import contextlib
import queue
import socket
import threading
import time
from pathlib import Path

from rlhf_cli import __version__
from rlhf_cli.artifacts.layout import CONFIG
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.launch.channel import Channel, listen, write_secret
from rlhf_cli.launch.exit_report import WorkerExit
from rlhf_cli.launch.rendezvous import SILENCE_TIMEOUT, Connection, Rendezvous
from rlhf_cli.launch.worker_group import LocalRanks, WorkerGroup

REPORT_TIMEOUT = 20.0  # seconds that the other nodes' reports may take once the run has failed


class Coordinator:
    """The connections of node 0 to the other nodes of a run."""

    def __init__(self, rendezvous: Rendezvous, timeout: float):
        self.rendezvous, self.timeout = rendezvous, timeout
        self.inbox: queue.SimpleQueue = queue.SimpleQueue()
        self.connections: dict[int, Connection] = {}
        self.local_world_sizes: dict[int, int] = {}
        self.lost_nodes: list[str] = []
        self.exits: list[WorkerExit] = []
        self.pending: set[int] = set()  # nodes whose workers have not been reported yet
        self.give_up_at = float("inf")
        self.server = listen(rendezvous.address, rendezvous.ports)
        # After the socket: a node that can read the secret connects at once.
        self.secret = write_secret(rendezvous.secret)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def num_nodes(self) -> int:
        return self.rendezvous.count

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:  # closed: the run is over
                return
            # In a thread of its own: a stranger who connects and sends nothing must not keep a node
            # out.
            threading.Thread(target=self._welcome, args=(connection,), daemon=True).start()

    def _welcome(self, connection: socket.socket) -> None:
        connection.settimeout(SILENCE_TIMEOUT)
        try:
            channel = Channel(connection, self.secret, is_coordinator=True)
            hello = channel.receive()
            channel.send({"do": "welcome", "folder": str(Path.cwd()), "version": __version__})
        except (OSError, ValueError):
            connection.close()
            return
        node = hello["node"]
        self.local_world_sizes[node] = hello["processes"]
        # Last: from now on wait_for_nodes takes the node as present, with its number of workers.
        self.connections[node] = Connection(channel, self.inbox, node)

    def wait_for_nodes(self, timeout: float) -> list[int]:
        """Wait until all nodes have joined; return those that have not."""
        until = time.monotonic() + timeout
        while missing := [n for n in range(1, self.num_nodes) if n not in self.connections]:
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        return missing

    def assign_ranks(self, local_world_size: int) -> LocalRanks:
        """Return the ranks of node 0, the first ones; UserError unless every node has as many."""
        if missing := self.wait_for_nodes(self.timeout):
            raise UserError(
                f"{_nodes(missing)} of {self.num_nodes} did not join within {self.timeout:g} s: start "
                "the same command once on every node"
            )
        for node, count in sorted(self.local_world_sizes.items()):
            if count != local_world_size:
                raise UserError(
                    f"node {node} has {count} processes and node 0 has {local_world_size}: "
                    "set runtime.num_processes"
                )
        store = listen(self.rendezvous.address)
        return LocalRanks(
            local_world_size=local_world_size,
            world_size=local_world_size * self.num_nodes,
            master_addr=self.rendezvous.address,
            master_port=store.getsockname()[1],
            store=store,
        )

    def start(self, job: Path, ranks: LocalRanks) -> None:
        """Command every node to start its workers."""
        self.exits, self.pending, self.give_up_at = [], set(self.connections), float("inf")
        texts = {name: (job.parent / name).read_text() for name in (CONFIG, job.name)}
        sizes = {"world_size": ranks.world_size, "local_world_size": ranks.local_world_size}
        self._send_all(do="start", job=str(job), texts=texts, port=ranks.master_port, **sizes)

    def _send_all(self, **command) -> None:
        for connection in self.connections.values():
            connection.send(**command)

    def signal(self, number: int) -> None:
        """Signal all workers of the other nodes; SIGKILL ends them."""
        self._send_all(do="signal", number=int(number))

    def poll(self, group: WorkerGroup) -> None:
        """Process reports of the other nodes; when one side has failed, end the other side."""
        with contextlib.suppress(queue.Empty):
            while True:
                node, message = self.inbox.get_nowait()
                self._process(node, message, group)
        # give_up_at is infinite until the command was sent, so it is sent once.
        if time.monotonic() >= group.terminate_at and self.give_up_at == float("inf"):
            self.give_up_at = time.monotonic() + REPORT_TIMEOUT
            self._send_all(do="stop")
        if time.monotonic() > self.give_up_at and not group.running():
            self.lost_nodes += [f"node {node} does not answer" for node in sorted(self.pending)]
            self.pending = set()

    def _process(self, node: int, message: dict | None, group: WorkerGroup) -> None:
        if message is None:
            if node in self.pending:
                self.lost_nodes.append(f"the connection to node {node} was lost")
            self.pending.discard(node)
            group.terminate_soon()
        elif message["event"] == "failing":
            group.terminate_soon()
        elif message["event"] == "ended":
            self.pending.discard(node)
            exits = [WorkerExit(**found) for found in message["exits"]]
            self.exits += exits
            for found in exits:
                # A worker that its parent has ended did not fail: code 0 schedules nothing.
                group.schedule_termination(ExitCode.OK if found.terminated else found.code)
        elif message["event"] == "refused":
            self.pending.discard(node)
            self.lost_nodes.append(f"node {node}: {message['reason']}")
            group.terminate_soon()

    @property
    def done(self) -> bool:
        """Return whether every node has reported the end of its workers."""
        return not self.pending

    def close(self, *, code: int) -> None:
        """Send the end of the run to all nodes, also to those that join late."""
        self.wait_for_nodes(SILENCE_TIMEOUT if code == ExitCode.OK else REPORT_TIMEOUT / 2)
        self._send_all(do="end", code=code)
        for connection in self.connections.values():
            connection.close()
        self.server.close()
        self.rendezvous.secret.unlink(missing_ok=True)


def _nodes(numbers: list[int]) -> str:
    noun = "node" if len(numbers) == 1 else "nodes"
    return f"{noun} {', '.join(map(str, numbers))}"

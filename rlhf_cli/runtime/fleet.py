"""What the machines of one run tell each other: orders from the driver, reports from the others.

JSON lines over TCP, one connection for each machine. Both ends beat; an end that closes, or is silent
for SILENCE seconds, is gone.
"""

import contextlib
import json
import os
import queue
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli import __version__
from rlhf_cli.config.errors import UserError
from rlhf_cli.runtime.crew import Crew, Place
from rlhf_cli.runtime.verdict import Ending

BEAT, SILENCE = 2.0, 60.0
LATE = 20.0  # seconds that the others' reports may take once the run has failed


@dataclass(slots=True, frozen=True, kw_only=True)
class Meeting:
    """This machine among `count`: they meet at one of `ports` of `address` and know the same `word`."""

    rank: int
    count: int
    address: str
    ports: tuple[int, ...]
    word: str


class Link:
    """One end of a connection; what arrives goes to the inbox as (who, message), None when it is over."""

    def __init__(self, connection: socket.socket, stream, inbox: queue.SimpleQueue, who: int):
        self.connection, self.stream, self.inbox, self.who = connection, stream, inbox, who
        self.lock = threading.Lock()
        self.closed = False
        for work in (self._listen, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def send(self, **message) -> None:
        """A broken connection is noticed by the listener."""
        with self.lock, contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self.closed = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self.stream:
                if message := json.loads(line):
                    self.inbox.put((self.who, message))
        self.inbox.put((self.who, None))
        self.closed = True

    def _beat(self) -> None:
        while not self.closed:
            self.send()
            time.sleep(BEAT)


class Lead:
    """The driver's side: gives orders to the other machines and hears what became of them."""

    def __init__(self, meeting: Meeting, timeout: float):
        self.meeting, self.timeout = meeting, timeout
        self.inbox: queue.SimpleQueue = queue.SimpleQueue()
        self.links: dict[int, Link] = {}
        self.processes: dict[int, int] = {}
        self.lost: list[str] = []
        self.endings: list[Ending] = []
        self.awaited: set[int] = set()
        self.until = float("inf")
        self.server = _listen_at(meeting)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:  # closed: the run is over
                return
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        connection.settimeout(SILENCE)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stream = connection.makefile("rb")
            hello = json.loads(stream.readline())
            if hello["word"] != self.meeting.word:
                connection.close()
                return
            welcome = {"do": "welcome", "folder": str(Path.cwd()), "version": __version__}
            connection.sendall(json.dumps(welcome).encode() + b"\n")
            self.processes[hello["node"]] = hello["processes"]
            self.links[hello["node"]] = Link(connection, stream, self.inbox, hello["node"])

    def gather(self, timeout: float) -> list[int]:
        """Wait for all machines; returns those that did not come."""
        until = time.monotonic() + timeout
        while missing := [n for n in range(1, self.meeting.count) if n not in self.links]:
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        return missing

    def place(self, here: int) -> Place:
        """The driver's own workers are the first ranks; every machine has as many."""
        if missing := self.gather(self.timeout):
            raise UserError(
                f"{_nodes(missing)} of {self.meeting.count} did not join within {self.timeout:g} s: start "
                "the same command once on every node"
            )
        for node, count in sorted(self.processes.items()):
            if count != here:
                raise UserError(
                    f"node {node} has {count} processes and node 0 has {here}: set runtime.num_processes"
                )
        meeting = self.meeting
        world = here * meeting.count
        return Place(here=here, world=world, address=meeting.address, port=free_port())

    def start(self, job: Path, place: Place) -> None:
        """Order every machine to start its workers."""
        self.endings, self.awaited, self.until = [], set(self.links), float("inf")
        texts = {name: (job.parent / name).read_text() for name in ("config.json", job.name)}
        where = {"world": place.world, "here": place.here, "port": place.port}
        self._order(do="start", job=str(job), texts=texts, **where)

    def _order(self, **order) -> None:
        for link in self.links.values():
            link.send(**order)

    def signal(self, number: int) -> None:
        """A signal for all workers; KILL ends them."""
        self._order(do="signal", number=int(number))

    def step(self, crew: Crew) -> None:
        """Hear the others; when one side fails, the other side ends."""
        with contextlib.suppress(queue.Empty):
            while True:
                node, message = self.inbox.get_nowait()
                self._hear(node, message, crew)
        if time.monotonic() >= crew.end_at and self.until == float("inf"):
            self.until = time.monotonic() + LATE
            self._order(do="stop")
        if time.monotonic() > self.until and not crew.live():
            self.lost += [f"node {node} does not answer" for node in sorted(self.awaited)]
            self.awaited = set()

    def _hear(self, node: int, message: dict | None, crew: Crew) -> None:
        if message is None:
            if node in self.awaited:
                self.lost.append(f"node {node} is gone")
            self.awaited.discard(node)
            crew.hurry()
        elif message["said"] == "failing":
            crew.hurry()
        elif message["said"] == "ended":
            self.awaited.discard(node)
            found = [Ending(**ending) for ending in message["endings"]]
            self.endings += found
            for ending in found:
                crew.expect_the_others(0 if ending.told else ending.code)
        elif message["said"] == "refused":
            self.awaited.discard(node)
            self.lost.append(f"node {node}: {message['why']}")
            crew.hurry()

    @property
    def done(self) -> bool:
        return not self.awaited

    def close(self, *, code: int) -> None:
        """Tell all of them, late comers too, that the run is over."""
        self.gather(SILENCE if code == 0 else LATE / 2)
        self._order(do="end", code=code)
        for link in self.links.values():
            link.close()
        self.server.close()


def _nodes(numbers: list[int]) -> str:
    word = "node" if len(numbers) == 1 else "nodes"
    return f"{word} {', '.join(map(str, numbers))}"


def _listen_at(meeting: Meeting) -> socket.socket:
    for port in meeting.ports:
        with contextlib.suppress(OSError):
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
    raise UserError(f"no free port among {', '.join(map(str, meeting.ports))}: set RLHF_PORT")


def join(meeting: Meeting, processes: int, inbox: queue.SimpleQueue, timeout: float) -> Link:
    """Connect to the driver, which may start later than this machine; moves to the driver's folder."""
    until = time.monotonic() + timeout
    hello = {"word": meeting.word, "node": meeting.rank, "processes": processes}
    while time.monotonic() < until:
        for port in meeting.ports:
            with contextlib.suppress(OSError, ValueError):
                connection = socket.create_connection((meeting.address, port), timeout=5)
                connection.sendall(json.dumps(hello).encode() + b"\n")
                stream = connection.makefile("rb")
                welcome = json.loads(stream.readline())
                connection.settimeout(SILENCE)
                _enter(welcome)
                return Link(connection, stream, inbox, 0)
        time.sleep(0.2)
    raise UserError(
        f"node 0 ({meeting.address}) did not answer within {timeout:g} s: start the same command there"
    )


def _enter(welcome: dict) -> None:
    if welcome["version"] != __version__:
        raise UserError(f"node 0 has rlhf {welcome['version']}, this node {__version__}")
    try:
        os.chdir(welcome["folder"])
    except OSError as error:
        raise UserError(
            f"node 0 works in {welcome['folder']}, which is not here: all nodes share a file system"
        ) from error


def free_port() -> int:
    """A port that nobody listens at, picked as late as possible."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]

"""What the machines of one run tell each other: orders from the driver, reports from the others.

Sealed JSON lines over TCP (channel.py), one connection for each machine. Both ends beat; an end that
closes, is silent for SILENCE seconds, or sends what is not sealed right, is gone.
"""

import contextlib
import queue
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli import __version__
from rlhf_cli.config.errors import UserError
from rlhf_cli.launch.channel import Channel, Unproven, leave_secret, listen_at, read_secret
from rlhf_cli.launch.exit_report import Ending
from rlhf_cli.launch.worker_group import Crew, Place

BEAT, SILENCE = 2.0, 60.0
ANSWER = 5.0  # seconds that node 0 has to prove that it is node 0
LATE = 20.0  # seconds that the others' reports may take once the run has failed


@dataclass(slots=True, frozen=True, kw_only=True)
class Meeting:
    """This machine among `count`: they meet at one of `ports` of `address`.

    secret: the file that node 0 leaves for the others.
    """

    rank: int
    count: int
    address: str
    ports: tuple[int, ...]
    secret: Path


class Link:
    """One end of a connection; what arrives goes to the inbox as (who, message), None when it is over."""

    def __init__(self, channel: Channel, inbox: queue.SimpleQueue, who: int):
        self.channel, self.inbox, self.who = channel, inbox, who
        self.lock = threading.Lock()
        self.closed = False
        for work in (self._listen, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def send(self, **message) -> None:
        """A broken connection is noticed by the listener."""
        with self.lock, contextlib.suppress(OSError):
            self.channel.send(message)

    def close(self) -> None:
        self.closed = True
        with contextlib.suppress(OSError):
            self.channel.connection.shutdown(socket.SHUT_WR)

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                if message := self.channel.receive():
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
        self.server = listen_at(meeting.address, meeting.ports)
        self.secret = leave_secret(meeting.secret)
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
        try:
            channel = Channel(connection, self.secret, leads=True)
            hello = channel.receive()
            channel.send({"do": "welcome", "folder": str(Path.cwd()), "version": __version__})
        except (OSError, ValueError):
            connection.close()
            return
        self.processes[hello["node"]] = hello["processes"]
        self.links[hello["node"]] = Link(channel, self.inbox, hello["node"])

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
        store = listen_at(meeting.address)
        port = store.getsockname()[1]
        return Place(here=here, world=world, address=meeting.address, port=port, store=store)

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
        self.meeting.secret.unlink(missing_ok=True)


def _nodes(numbers: list[int]) -> str:
    word = "node" if len(numbers) == 1 else "nodes"
    return f"{word} {', '.join(map(str, numbers))}"


def join(meeting: Meeting, processes: int, inbox: queue.SimpleQueue, timeout: float) -> Link:
    """Connect to the driver, which may start later than this machine, and let it prove that it is one."""
    until, why = time.monotonic() + timeout, "start the same command there"
    hello = {"node": meeting.rank, "processes": processes}
    while time.monotonic() < until:
        for port in meeting.ports if (secret := read_secret(meeting.secret)) else ():
            try:
                channel, welcome = _greeted(meeting.address, port, secret, hello)
            except Unproven:
                why = f"somebody else answered at port {port}, who does not know this run's secret"
            except OSError:
                continue
            else:
                _check(welcome)
                channel.connection.settimeout(SILENCE)
                return Link(channel, inbox, 0)
        time.sleep(0.2)
    if secret is None:
        why += f", with a runs_dir that both nodes see: {meeting.secret} is not there"
    raise UserError(f"node 0 ({meeting.address}) did not answer within {timeout:g} s: {why}")


def _greeted(address: str, port: int, secret: bytes, hello: dict) -> tuple[Channel, dict]:
    """Whoever listens there, and its welcome."""
    connection = socket.create_connection((address, port), timeout=ANSWER)
    try:
        channel = Channel(connection, secret, leads=False)
        channel.send(hello)
        return channel, channel.receive()
    except BaseException:
        connection.close()
        raise


def _check(welcome: dict) -> None:
    if welcome["version"] != __version__:
        raise UserError(f"node 0 has rlhf {welcome['version']}, this node {__version__}")
    there = Path(welcome["folder"])
    if not there.is_dir():
        raise UserError(
            f"node 0 works in {there}, which is not here: all nodes share a file system"
        )
    if not there.samefile(Path.cwd()):
        raise UserError(
            f"node 0 works in {there}, this node in {Path.cwd()}: start all in the same folder"
        )

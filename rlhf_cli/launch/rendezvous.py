"""How the nodes of one run meet: where they connect, and how a node joins node 0.

Authenticated JSON lines over TCP (channel.py), one connection per node. Both ends send heartbeats; an
end that closes, is silent for SILENCE_TIMEOUT seconds, or sends a wrong code, is lost.
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
from rlhf_cli.launch.channel import AuthenticationError, Channel, read_secret

HEARTBEAT, SILENCE_TIMEOUT = 2.0, 60.0  # seconds
RETRY = 0.2  # seconds between two attempts to connect
HANDSHAKE_TIMEOUT = 5.0  # seconds that node 0 has to prove that it is node 0


@dataclass(slots=True, frozen=True, kw_only=True)
class Rendezvous:
    """This node among `count`: they meet at one of `ports` of `address`.

    secret: the file with which node 0 and the others prove to each other that they share the run.
    """

    rank: int
    count: int
    address: str
    ports: tuple[int, ...]
    secret: Path


class Connection:
    """One end of a connection: messages arrive in the inbox as (node, message), None at the end."""

    def __init__(self, channel: Channel, inbox: queue.SimpleQueue, node: int):
        self.channel, self.inbox, self.node = channel, inbox, node
        self.lock = threading.Lock()
        self.closed = False
        for work in (self._receive, self._send_heartbeats):
            threading.Thread(target=work, daemon=True).start()

    def send(self, **message) -> None:
        """Send one message; a broken connection is noticed by the receiving thread."""
        # Two threads send, commands and heartbeats; a line's number and its bytes belong together.
        with self.lock, contextlib.suppress(OSError):
            self.channel.send(message)

    def close(self) -> None:
        self.closed = True
        with contextlib.suppress(OSError):
            # Only the sending half: what is on its way in either direction still arrives.
            self.channel.connection.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                # An empty message is a heartbeat: it only restarts the timeout of the socket.
                if message := self.channel.receive():
                    self.inbox.put((self.node, message))
        self.inbox.put((self.node, None))
        self.closed = True

    def _send_heartbeats(self) -> None:
        while not self.closed:
            self.send()
            time.sleep(HEARTBEAT)


def join(
    rendezvous: Rendezvous, local_world_size: int, inbox: queue.SimpleQueue, timeout: float
) -> Connection:
    """Connect to node 0, which may start later than this node and has to prove that it has the secret."""
    until, reason = time.monotonic() + timeout, "start the same command there"
    hello = {"node": rendezvous.rank, "processes": local_world_size}
    secret = None
    while time.monotonic() < until:
        # Read again for every attempt: node 0 replaces the file that a killed run has left.
        if (secret := read_secret(rendezvous.secret)) is None:
            time.sleep(RETRY)
            continue
        for port in rendezvous.ports:
            try:
                channel, welcome = _shake_hands(rendezvous.address, port, secret, hello)
            except AuthenticationError:
                reason = f"port {port} answered without this run's secret: another program uses it"
            except OSError:
                continue
            else:
                _check_welcome(welcome)
                channel.connection.settimeout(SILENCE_TIMEOUT)
                return Connection(channel, inbox, 0)
        time.sleep(RETRY)
    if secret is None:
        reason += f", with a runs_dir that both nodes share: {rendezvous.secret} does not exist"
    raise UserError(f"node 0 ({rendezvous.address}) did not answer within {timeout:g} s: {reason}")


def _shake_hands(address: str, port: int, secret: bytes, hello: dict) -> tuple[Channel, dict]:
    """Return the channel to the process that listens there, and its welcome."""
    connection = socket.create_connection((address, port), timeout=HANDSHAKE_TIMEOUT)
    try:
        channel = Channel(connection, secret, is_coordinator=False)
        channel.send(hello)
        return channel, channel.receive()
    except BaseException:
        connection.close()
        raise


def _check_welcome(welcome: dict) -> None:
    """Refuse a node 0 with another version, or one that works in another folder."""
    if welcome["version"] != __version__:
        raise UserError(f"node 0 has rlhf {welcome['version']}, this node {__version__}")
    folder = Path(welcome["folder"])
    if not folder.is_dir():
        raise UserError(
            f"node 0 works in {folder}, which does not exist here: all nodes share a file system"
        )
    if not folder.samefile(Path.cwd()):
        raise UserError(
            f"node 0 works in {folder}, this node in {Path.cwd()}: start all in the same folder"
        )

"""Lines between two nodes that share a run folder, and the sockets they travel through.

Each end proves with every line that it knows the run's secret: a file in the shared folder that only
this user can read. Nothing is encrypted; nothing that travels is worth hiding.
"""

import hmac
import json
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Iterable
from errno import EADDRINUSE
from pathlib import Path

from rlhf_cli.config.errors import UserError

LOOPBACK = "127.0.0.1"
LONGEST = 2**22  # bytes of a line
NONCE = 32  # hexadecimal digits


class Unproven(ValueError):
    """A line that was not written by somebody who knows the secret, in its turn."""


class Channel:
    """One end of a connection; `leads` tells the two ends apart.

    Both begin with a fresh nonce. The key is made of the secret and both nonces, and every line is
    sealed with the key, its direction and its number: nothing can be repeated, reordered or sent back.
    """

    def __init__(self, connection: socket.socket, secret: bytes, *, leads: bool):
        self.connection, self.leads = connection, leads
        self.stream = connection.makefile("rb")
        self.written = self.read = 0
        mine = secrets.token_hex(NONCE // 2).encode()
        connection.sendall(mine + b"\n")
        theirs = self._line(NONCE + 1)
        if len(theirs) != NONCE:
            raise Unproven("no nonce")
        self.key = hmac.digest(secret, mine + theirs if leads else theirs + mine, "sha256")

    def send(self, message: dict) -> None:
        text = json.dumps(message).encode()
        self.connection.sendall(self._seal(text, self.leads, self.written) + text + b"\n")
        self.written += 1

    def receive(self) -> dict:
        """The next message; ConnectionError at the end, Unproven for a line that is not the other end's."""
        line = self._line(LONGEST)
        seal, text = line[:64], line[64:]
        if not hmac.compare_digest(seal, self._seal(text, not self.leads, self.read)):
            raise Unproven("a line without a right seal")
        self.read += 1
        return json.loads(text)

    def _seal(self, text: bytes, from_lead: bool, number: int) -> bytes:
        place = f"{'lead' if from_lead else 'node'} {number} ".encode()
        return hmac.digest(self.key, place + text, "sha256").hex().encode()

    def _line(self, most: int) -> bytes:
        line = self.stream.readline(most)
        if not line.endswith(b"\n"):
            raise ConnectionError("the other end is gone")
        return line[:-1]


def leave_secret(path: Path) -> bytes:
    """Write a new secret that this user alone can read, in place of one that a killed run left."""
    secret = secrets.token_hex(32).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    number, beside = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)  # mode 0600
    with os.fdopen(number, "wb") as stream:
        stream.write(secret)
    Path(beside).replace(path)
    return secret


def read_secret(path: Path) -> bytes | None:
    """The secret that node 0 has left; None before it has. UserError when others could have."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): remove it") from error
    with os.fdopen(number, "rb") as stream, tempfile.TemporaryFile(dir=path.parent) as own:
        found, mine = os.fstat(number), os.fstat(own.fileno())
        # a file server may know this user under another number: compare with a file of our own
        if found.st_uid != mine.st_uid or stat.S_IMODE(found.st_mode) & 0o077:
            raise UserError(
                f"{path} is not this user's alone: remove it, and start all nodes again"
            )
        return stream.read()


def listen_at(address: str, ports: Iterable[int] = (0,)) -> socket.socket:
    """A listening socket on the interface of `address` alone, at the first free one of `ports`."""
    try:
        family, _, _, _, place = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"node 0's address {address} is not known here: {error}") from error
    for port in ports:
        try:
            return socket.create_server((place[0], port), family=family)
        except OSError as error:
            if error.errno != EADDRINUSE:
                raise UserError(
                    f"node 0 cannot listen at {address}, port {port} ({os.strerror(error.errno or 0)}): "
                    "RLHF_ADDRESS and RLHF_PORT, set on all nodes, name others"
                ) from error
    raise UserError(f"no free port among {', '.join(map(str, ports))}: set RLHF_PORT on all nodes")

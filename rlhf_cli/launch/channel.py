"""Authenticated lines between two nodes that share a run folder, and the sockets that carry them.

Each end proves with every line that it has the run's secret: a file in the shared folder that only
this user can read. Nothing is encrypted, because nothing that is sent is confidential.
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

from rlhf_cli.config.environment import ADDRESS, PORT
from rlhf_cli.config.errors import UserError

LOOPBACK = "127.0.0.1"
MAX_LINE = 2**22  # bytes
NONCE_DIGITS = 32  # hexadecimal
MAC_DIGITS = 64


class AuthenticationError(ValueError):
    """A line without a valid code: written without the secret, or repeated, or out of order."""


class Channel:
    """One end of a connection; `is_coordinator` distinguishes the two ends.

    Both ends send a fresh nonce first. The key is derived from the secret and both nonces, and every line
    carries a message authentication code of its text, direction and number: no line can be repeated,
    reordered or sent back.
    """

    def __init__(self, connection: socket.socket, secret: bytes, *, is_coordinator: bool):
        self.connection, self.is_coordinator = connection, is_coordinator
        self.stream = connection.makefile("rb")
        self.num_sent = self.num_received = 0
        ours = secrets.token_hex(NONCE_DIGITS // 2).encode()
        connection.sendall(ours + b"\n")
        theirs = self._read_line(NONCE_DIGITS + 1)
        if len(theirs) != NONCE_DIGITS:
            raise AuthenticationError("no nonce")
        # key = HMAC(secret, nonce of node 0, nonce of the other node), the same at both ends.
        self.key = hmac.digest(secret, ours + theirs if is_coordinator else theirs + ours, "sha256")

    def send(self, message: dict) -> None:
        """Send one message as a line of JSON with its authentication code."""
        text = json.dumps(message).encode()
        code = self._code(text, self.is_coordinator, self.num_sent)
        self.connection.sendall(code + text + b"\n")
        self.num_sent += 1

    def receive(self) -> dict:
        """Return the next message; ConnectionError at the end, AuthenticationError for a wrong code."""
        line = self._read_line(MAX_LINE)
        code, text = line[:MAC_DIGITS], line[MAC_DIGITS:]
        expected = self._code(text, not self.is_coordinator, self.num_received)
        # In constant time: the duration of == depends on how many digits are right.
        if not hmac.compare_digest(code, expected):
            raise AuthenticationError("a line with a wrong authentication code")
        self.num_received += 1
        return json.loads(text)

    def _code(self, text: bytes, from_coordinator: bool, number: int) -> bytes:
        # code = HMAC(key, direction, number, text). The first two are counted at both ends, never
        # sent.
        prefix = f"{'coordinator' if from_coordinator else 'node'} {number} ".encode()
        return hmac.digest(self.key, prefix + text, "sha256").hex().encode()

    def _read_line(self, size: int) -> bytes:
        # Bounded: before the line is checked, its sender has proved nothing.
        line = self.stream.readline(size)
        if not line.endswith(b"\n"):
            raise ConnectionError("the other end has closed the connection")
        return line[:-1]


def write_secret(path: Path) -> bytes:
    """Write a new secret that only this user can read, in place of one that a killed run left."""
    secret = secrets.token_hex(32).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    number, beside = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)  # mode 0600
    with os.fdopen(number, "wb") as stream:
        stream.write(secret)
    Path(beside).replace(path)
    return secret


def read_secret(path: Path) -> bytes | None:
    """Return the secret that node 0 has written, None before; UserError if others could have written it."""
    try:
        # No link is followed: another user could have put it there.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): remove it") from error
    with os.fdopen(number, "rb") as stream, tempfile.TemporaryFile(dir=path.parent) as own:
        found, ours = os.fstat(number), os.fstat(own.fileno())
        # a file server may map this user to another number: compare with a file of our own
        if found.st_uid != ours.st_uid or stat.S_IMODE(found.st_mode) & 0o077:
            raise UserError(
                f"{path} is not this user's alone: remove it, and start all nodes again"
            )
        return stream.read()


def listen(address: str, ports: Iterable[int] = (0,)) -> socket.socket:
    """Return a listening socket on the interface of `address` only, at the first free one of `ports`."""
    try:
        family, _, _, _, place = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"node 0's address {address} cannot be resolved: {error}") from error
    for port in ports:
        try:
            return socket.create_server((place[0], port), family=family)
        except OSError as error:
            if error.errno != EADDRINUSE:
                raise UserError(
                    f"node 0 cannot listen at {address}, port {port} ({os.strerror(error.errno or 0)}): "
                    f"set {ADDRESS} and {PORT} to others, on all nodes"
                ) from error
    raise UserError(f"no free port among {', '.join(map(str, ports))}: set {PORT} on all nodes")

"""Whether this machine can be reached at an address."""

import _socket
import contextlib
import socket

import pytest


def outer_address() -> str:
    """Return an address of this machine that others could reach."""
    probe = _socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        if not (found := probe.getsockname()[0]).startswith(("127.", "0.")):
            return found
    pytest.skip("this machine has no address but its loopback")


def can_connect(address: str, port: int) -> bool:
    caller = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        caller.connect((address, port))
    except ConnectionRefusedError:
        return False
    finally:
        caller.close()
    return True

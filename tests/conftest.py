"""Fixtures of all tests: no network, no hub, and the folder of the real data."""

import os
import socket
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None, socket.gethostname())


class NetworkRefused(RuntimeError):
    """A test tried to reach another machine."""


def _refuse(host) -> None:
    if host not in LOCAL:
        raise NetworkRefused(f"tests may not reach the network: {host}")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Limit sockets to this machine, so that only processes of a test are connected."""
    connect, connect_ex, getaddrinfo = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def host(sock, address):
        return None if sock.family == getattr(socket, "AF_UNIX", None) else address[0]

    def guarded_connect(sock, address):
        _refuse(host(sock, address))
        return connect(sock, address)

    def guarded_connect_ex(sock, address):
        _refuse(host(sock, address))
        return connect_ex(sock, address)

    def guarded_getaddrinfo(name, *rest, **named):
        _refuse(name)
        return getaddrinfo(name, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data and models: $RLHF_TEST_DATA, or one beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RLHF_TEST_DATA", beside))
    if not (folder / "comparisons").is_dir():
        pytest.skip("no real data: set RLHF_TEST_DATA to the folder that has comparisons/")
    return folder

"""Fixtures of all tests: no network, no hub, and the folder of the real data."""

import gc
import os
import socket
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None, socket.gethostname())


class NetworkRefused(RuntimeError):
    """A test tried to reach another machine."""


def _refuse(host) -> None:
    if host not in LOCAL:
        raise NetworkRefused(f"tests may not reach the network: {host}")


def pytest_collection_finish() -> None:
    """Exempt what was imported from garbage collection, which would look at it again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """Parse each YAML text of a file once, which is most of the time of composing a configuration."""
    parse, parsed = yaml.load, {}

    def load(stream, Loader):
        if not getattr(stream, "seekable", bool)():
            return parse(stream, Loader=Loader)
        start = stream.tell()
        key = (Loader.__qualname__, stream.read())
        if key not in parsed:
            stream.seek(start)
            parsed[key] = parse(stream, Loader=Loader)
        return deepcopy(parsed[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "load", load)
        yield


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

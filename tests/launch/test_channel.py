"""Nodes prove to each other that they share the run, and listen where they were told to."""

import os
import socket
import stat
import threading

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.launch.channel import (
    LOOPBACK,
    AuthenticationError,
    Channel,
    listen,
    read_secret,
    write_secret,
)
from tests.support.sockets import can_connect, outer_address


def connected(secret: bytes = b"ours", other: bytes = b"ours"):
    """(the coordinator's channel, a node's): both greet at the same time."""
    one, two = socket.socketpair()
    found = {}
    node = threading.Thread(
        target=lambda: found.update(node=Channel(two, other, is_coordinator=False))
    )
    node.start()
    coordinator = Channel(one, secret, is_coordinator=True)
    node.join()
    return coordinator, found["node"]


def test_those_who_know_the_secret_hear_each_other_in_order():
    coordinator, node = connected()
    for number in range(3):
        coordinator.send({"do": number})
        node.send({"said": number})
    assert [node.receive() for _ in range(3)] == [{"do": n} for n in range(3)]
    assert [coordinator.receive() for _ in range(3)] == [{"said": n} for n in range(3)]


def test_neither_end_believes_one_who_does_not_know_the_secret():
    coordinator, node = connected(b"ours", b"theirs")
    coordinator.send({"do": "start"})
    node.send({"node": 1})
    with pytest.raises(AuthenticationError):
        node.receive()
    with pytest.raises(AuthenticationError):
        coordinator.receive()


@pytest.mark.parametrize("what", ["changed", "repeated", "sent back"])
def test_who_stands_between_two_nodes_can_say_nothing(what):
    coordinator, node = connected()
    coordinator.send({"do": "stop"})
    line = node.stream.readline()
    if what == "changed":
        coordinator.connection.sendall(line.replace(b"stop", b"kill"))
    elif what == "repeated":
        coordinator.connection.sendall(line + line)
        assert node.receive() == {"do": "stop"}
    else:
        node.connection.sendall(line)
    with pytest.raises(AuthenticationError):
        (coordinator if what == "sent back" else node).receive()


def test_what_was_said_once_proves_nothing_another_time():
    coordinator, node = connected()
    coordinator.send({"do": "start"})
    said = node.stream.readline()
    coordinator, node = connected()
    coordinator.connection.sendall(said)
    with pytest.raises(AuthenticationError):
        node.receive()


def test_a_long_or_unfinished_line_ends_the_connection():
    coordinator, node = connected()
    coordinator.connection.sendall(b"half a line")
    coordinator.connection.close()
    coordinator.stream.close()
    with pytest.raises(ConnectionError):
        node.receive()


def test_only_this_user_can_read_the_secret_and_each_run_has_another(tmp_path):
    path = tmp_path / "runs" / ".nodes-1"
    assert read_secret(tmp_path / "none") is None
    first = write_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_secret(path) == first
    second = write_secret(path)
    assert (read_secret(path), len(second)) == (second, 64)
    assert first != second
    assert [p.name for p in path.parent.iterdir()] == [".nodes-1"]


def readable(path):
    path.chmod(0o644)


def linked(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def anothers(path):
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("spoil", [readable, linked, anothers])
def test_a_secret_that_somebody_else_could_have_left_is_refused(tmp_path, spoil):
    path = tmp_path / ".nodes-1"
    write_secret(path)
    spoil(path)
    with pytest.raises(UserError, match=r"\.nodes-1 (is not this user's alone|cannot be read)"):
        read_secret(path)


def test_nobody_outside_reaches_a_socket_on_the_loopback():
    with listen(LOOPBACK) as server:
        port = server.getsockname()[1]
        assert can_connect(LOOPBACK, port)
        assert not can_connect(outer_address(), port)


def test_a_port_that_was_lost_is_tried_at_the_next():
    with listen(LOOPBACK) as taken, listen(LOOPBACK) as other:
        ports = [s.getsockname()[1] for s in (taken, other)]
        with pytest.raises(UserError, match=f"no free port among {ports[0]}, {ports[1]}: set RLHF"):
            listen(LOOPBACK, ports)
        with listen(LOOPBACK, [ports[0], 0]) as mine:
            assert mine.getsockname()[1] not in ports


def test_an_address_of_another_machine_is_refused_in_one_line(monkeypatch):
    def elsewhere(host, port, **more):
        return [(socket.AF_INET, None, None, None, ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", elsewhere)
    with pytest.raises(UserError, match=r"cannot listen at node0, port 0 .*RLHF_ADDRESS"):
        listen("node0")

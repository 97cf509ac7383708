"""Authentication between the nodes of a run, and the addresses at which they listen."""

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
    """Return (the coordinator's channel, a node's); the two handshakes run at the same time."""
    one, two = socket.socketpair()
    found = {}
    node = threading.Thread(
        target=lambda: found.update(node=Channel(two, other, is_coordinator=False))
    )
    node.start()
    coordinator = Channel(one, secret, is_coordinator=True)
    node.join()
    return coordinator, found["node"]


def test_two_ends_with_one_secret_receive_messages_in_order():
    coordinator, node = connected()
    for number in range(3):
        coordinator.send({"do": number})
        node.send({"said": number})
    assert [node.receive() for _ in range(3)] == [{"do": n} for n in range(3)]
    assert [coordinator.receive() for _ in range(3)] == [{"said": n} for n in range(3)]


def test_each_end_refuses_messages_signed_with_another_secret():
    coordinator, node = connected(b"ours", b"theirs")
    coordinator.send({"do": "start"})
    node.send({"node": 1})
    with pytest.raises(AuthenticationError):
        node.receive()
    with pytest.raises(AuthenticationError):
        coordinator.receive()


@pytest.mark.parametrize("what", ["changed", "repeated", "sent back"])
def test_a_changed_repeated_or_returned_message_is_refused(what):
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


def test_a_message_of_an_earlier_connection_is_refused():
    coordinator, node = connected()
    coordinator.send({"do": "start"})
    line = node.stream.readline()
    coordinator, node = connected()
    coordinator.connection.sendall(line)
    with pytest.raises(AuthenticationError):
        node.receive()


def test_an_unfinished_line_ends_the_connection():
    coordinator, node = connected()
    coordinator.connection.sendall(b"half a line")
    coordinator.connection.close()
    coordinator.stream.close()
    with pytest.raises(ConnectionError):
        node.receive()


def test_the_secret_is_readable_by_its_user_alone_and_new_for_each_run(tmp_path):
    path = tmp_path / "runs" / ".nodes-1"
    assert read_secret(tmp_path / "none") is None
    first = write_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_secret(path) == first
    second = write_secret(path)
    assert (read_secret(path), len(second)) == (second, 64)
    assert first != second
    assert [p.name for p in path.parent.iterdir()] == [".nodes-1"]


def readable_by_all(path):
    path.chmod(0o644)


def symbolic_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def owned_by_another_user(path):
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("spoil", [readable_by_all, symbolic_link, owned_by_another_user])
def test_a_secret_file_that_another_user_could_have_written_is_refused(tmp_path, spoil):
    path = tmp_path / ".nodes-1"
    write_secret(path)
    spoil(path)
    with pytest.raises(UserError, match=r"\.nodes-1 (is not this user's alone|cannot be read)"):
        read_secret(path)


def test_a_loopback_socket_is_unreachable_from_other_addresses():
    with listen(LOOPBACK) as server:
        port = server.getsockname()[1]
        assert can_connect(LOOPBACK, port)
        assert not can_connect(outer_address(), port)


def test_listen_takes_the_next_port_when_one_is_in_use():
    with listen(LOOPBACK) as taken, listen(LOOPBACK) as other:
        ports = [s.getsockname()[1] for s in (taken, other)]
        with pytest.raises(UserError, match=f"no free port among {ports[0]}, {ports[1]}: set RLHF"):
            listen(LOOPBACK, ports)
        with listen(LOOPBACK, [ports[0], 0]) as mine:
            assert mine.getsockname()[1] not in ports


def test_listening_at_an_address_of_another_machine_is_refused_in_one_line(monkeypatch):
    def elsewhere(host, port, **more):
        return [(socket.AF_INET, None, None, None, ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", elsewhere)
    with pytest.raises(UserError, match=r"cannot listen at node0, port 0 .*RLHF_ADDRESS"):
        listen("node0")

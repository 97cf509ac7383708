"""A node follows the driver of its own run and nobody else, and starts what it was itself asked for."""

import contextlib
import json
import queue
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlhf_cli.config.compose import freeze
from rlhf_cli.config.errors import UserError
from rlhf_cli.launch import nodes
from rlhf_cli.launch import rendezvous as fleet
from rlhf_cli.launch.channel import LOOPBACK, leave_secret, listen_at
from rlhf_cli.launch.nodes import refusal
from rlhf_cli.launch.rendezvous import Lead, Meeting, join
from tests.config.test_compose import composed


def meeting(folder: Path, ports: tuple[int, ...], rank: int = 1) -> Meeting:
    return Meeting(
        rank=rank, count=2, address=LOOPBACK, ports=ports, secret=folder / "runs" / ".nodes-1"
    )


@contextmanager
def leading(folder: Path):
    lead = Lead(meeting(folder, (0,), rank=0), 5.0)
    try:
        yield lead, lead.server.getsockname()[1]
    finally:
        lead.server.close()


@contextmanager
def impostor(words: bytes):
    """Somebody who has taken a port and answers with `words`."""
    with listen_at(LOOPBACK) as server:

        def answer():
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    connection, _ = server.accept()
                    connection.sendall(words)
                    time.sleep(0.1)
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


FAKES = [b"", b"\n", b"0" * 32 + b"\n" + b"0" * 64 + b'{"do": "welcome"}\n', b'{"do": "welcome"}\n']


@pytest.mark.parametrize("words", FAKES)
def test_a_node_passes_over_whoever_cannot_prove_that_it_is_node_0(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    with leading(tmp_path) as (lead, port), impostor(words) as fake:
        inbox: queue.SimpleQueue = queue.SimpleQueue()
        link = join(meeting(tmp_path, (fake, port)), 3, inbox, 5.0)
        assert lead.gather(5.0) == []
        assert lead.processes == {1: 3}
        lead._order(do="end", code=0)
        assert inbox.get(timeout=5) == (0, {"do": "end", "code": 0})
        link.close()


def test_an_impostor_alone_is_told_of(tmp_path):
    leave_secret(tmp_path / "runs" / ".nodes-1")
    with (
        impostor(FAKES[2]) as fake,
        pytest.raises(UserError, match=f"somebody else answered at port {fake}"),
    ):
        join(meeting(tmp_path, (fake,)), 1, queue.SimpleQueue(), 0.3)


def test_a_node_without_the_runs_folder_asks_nobody(tmp_path):
    with (
        impostor(FAKES[2]) as fake,
        pytest.raises(UserError, match=r"with a runs_dir that both nodes see: .*\.nodes-1 is not"),
    ):
        join(meeting(tmp_path, (fake,)), 1, queue.SimpleQueue(), 0.3)


def test_a_stranger_does_not_join(tmp_path):
    with leading(tmp_path) as (lead, port):
        stranger = socket.create_connection((LOOPBACK, port))
        stranger.sendall(FAKES[2])
        with stranger.makefile("rb") as stream:
            assert len(stream.readline()) == 33  # a nonce
            assert stream.readline() == b""  # and no more
        stranger.close()
        assert lead.links == {}


@pytest.mark.parametrize(
    ("welcome", "expected"),
    [
        ({"version": "0.0.0", "folder": "/"}, "node 0 has rlhf 0.0.0, this node"),
        ({"version": fleet.__version__, "folder": "/none"}, "node 0 works in /none, which is not"),
        ({"version": fleet.__version__, "folder": "/"}, "node 0 works in /, this node in .*same"),
    ],
)
def test_nodes_of_one_run_have_one_version_and_one_folder(tmp_path, monkeypatch, welcome, expected):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=expected):
        fleet._check(welcome)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nodes, "SEEN", 0.5)
    cfg = composed("experiment=smoke", "name=a")
    job = tmp_path / "runs" / "a" / ".sft.work" / "job.json"
    job.parent.mkdir(parents=True)
    texts = {"config.json": json.dumps(freeze(cfg)), "job.json": "{}"}
    for name, text in texts.items():
        (job.parent / name).write_text(text)
    return cfg, job, texts


def test_a_node_starts_what_it_was_asked_for_itself(asked):
    cfg, job, texts = asked
    assert refusal(job, texts, cfg) is None
    frozen = json.loads(texts["config.json"])
    frozen["data"]["date"] = "1999-12-31"  # node 0 may have begun on another day
    texts["config.json"] = json.dumps(frozen)
    (job.parent / "config.json").write_text(texts["config.json"])
    assert refusal(job, texts, cfg) is None


@pytest.mark.parametrize("place", ["runs/b/.sft.work/job.json", "../job.json", "runs/a/../b/job"])
def test_a_node_starts_nothing_outside_its_run(asked, place):
    cfg, _, texts = asked
    told = f"{place} is not inside runs/a"
    assert refusal(Path(place), texts, cfg) == told


def test_a_node_starts_nothing_with_another_configuration(asked):
    cfg, job, texts = asked
    frozen = json.loads(texts["config.json"])
    frozen["model"]["trust_remote_code"] = True
    texts["config.json"] = json.dumps(frozen)
    (job.parent / "config.json").write_text(texts["config.json"])
    assert refusal(job, texts, cfg) == (
        "model.trust_remote_code differs from node 0's: start the same command on every node"
    )

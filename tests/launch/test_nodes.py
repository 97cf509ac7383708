"""A node joins only the coordinator of its own run, and starts only jobs of its own command."""

import contextlib
import json
import queue
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlhf_cli import __version__
from rlhf_cli.config.compose import freeze
from rlhf_cli.config.errors import UserError
from rlhf_cli.launch import nodes
from rlhf_cli.launch.channel import LOOPBACK, listen, write_secret
from rlhf_cli.launch.coordinator import Coordinator
from rlhf_cli.launch.nodes import find_rendezvous, first_host, start_refusal
from rlhf_cli.launch.rendezvous import Rendezvous, _check_welcome, join
from tests.support.configuration import composed


def rendezvous(folder: Path, ports: tuple[int, ...], rank: int = 1) -> Rendezvous:
    return Rendezvous(
        rank=rank, count=2, address=LOOPBACK, ports=ports, secret=folder / "runs" / ".nodes-1"
    )


@contextmanager
def open_coordinator(folder: Path):
    coordinator = Coordinator(rendezvous(folder, (0,), rank=0), 5.0)
    try:
        yield coordinator, coordinator.server.getsockname()[1]
    finally:
        coordinator.server.close()


@contextmanager
def false_coordinator(reply: bytes):
    """Answer every connection with `reply`, like a process that took the port; yield the port."""
    with listen(LOOPBACK) as server:

        def answer():
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    connection, _ = server.accept()
                    connection.sendall(reply)
                    time.sleep(0.1)
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


REPLIES_WITHOUT_SECRET = [
    b"",
    b"\n",
    b"0" * 32 + b"\n" + b"0" * 64 + b'{"do": "welcome"}\n',
    b'{"do": "welcome"}\n',
]


@pytest.mark.parametrize("reply", REPLIES_WITHOUT_SECRET)
def test_a_node_skips_a_port_that_answers_without_the_secret(tmp_path, monkeypatch, reply):
    monkeypatch.chdir(tmp_path)
    with open_coordinator(tmp_path) as (coordinator, port), false_coordinator(reply) as fake:
        inbox: queue.SimpleQueue = queue.SimpleQueue()
        connection = join(rendezvous(tmp_path, (fake, port)), 3, inbox, 5.0)
        assert coordinator.wait_for_nodes(5.0) == []
        assert coordinator.local_world_sizes == {1: 3}
        coordinator._send_all(do="end", code=0)
        assert inbox.get(timeout=5) == (0, {"do": "end", "code": 0})
        connection.close()


def test_joining_fails_when_the_only_answer_lacks_the_secret(tmp_path):
    write_secret(tmp_path / "runs" / ".nodes-1")
    with (
        false_coordinator(REPLIES_WITHOUT_SECRET[2]) as fake,
        pytest.raises(UserError, match=f"port {fake} answered without this run's secret"),
    ):
        join(rendezvous(tmp_path, (fake,)), 1, queue.SimpleQueue(), 0.3)


def test_joining_without_the_shared_runs_folder_is_refused(tmp_path):
    with (
        false_coordinator(REPLIES_WITHOUT_SECRET[2]) as fake,
        pytest.raises(
            UserError, match=r"with a runs_dir that both nodes share: .*\.nodes-1 does not"
        ),
    ):
        join(rendezvous(tmp_path, (fake,)), 1, queue.SimpleQueue(), 0.3)


def test_a_connection_without_the_secret_is_refused(tmp_path):
    with open_coordinator(tmp_path) as (coordinator, port):
        client = socket.create_connection((LOOPBACK, port))
        client.sendall(REPLIES_WITHOUT_SECRET[2])
        with client.makefile("rb") as stream:
            assert len(stream.readline()) == 33  # a nonce
            assert stream.readline() == b""  # and no more
        client.close()
        assert coordinator.connections == {}


@pytest.mark.parametrize(
    ("welcome", "expected"),
    [
        ({"version": "0.0.0", "folder": "/"}, "node 0 has rlhf 0.0.0, this node"),
        (
            {"version": __version__, "folder": "/none"},
            "node 0 works in /none, which does not exist here",
        ),
        (
            {"version": __version__, "folder": "/"},
            "node 0 works in /, this node in .*same",
        ),
    ],
)
def test_a_node_with_another_version_or_folder_is_refused(tmp_path, monkeypatch, welcome, expected):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=expected):
        _check_welcome(welcome)


@pytest.fixture
def job_of_this_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nodes, "VISIBLE_TIMEOUT", 0.5)
    cfg = composed("experiment=smoke", "name=a")
    job = tmp_path / "runs" / "a" / ".sft.work" / "job.json"
    job.parent.mkdir(parents=True)
    texts = {"config.json": json.dumps(freeze(cfg)), "job.json": "{}"}
    for name, text in texts.items():
        (job.parent / name).write_text(text)
    return freeze(cfg), job, texts


def test_a_node_starts_a_job_of_its_own_configuration(job_of_this_run):
    config, job, texts = job_of_this_run
    assert start_refusal(job, texts, config) is None
    frozen = json.loads(texts["config.json"])
    frozen["data"]["date"] = "1999-12-31"  # node 0 may have begun on another day
    texts["config.json"] = json.dumps(frozen)
    (job.parent / "config.json").write_text(texts["config.json"])
    assert start_refusal(job, texts, config) is None


@pytest.mark.parametrize("place", ["runs/b/.sft.work/job.json", "../job.json", "runs/a/../b/job"])
def test_a_node_refuses_a_job_outside_its_run(job_of_this_run, place):
    config, _, texts = job_of_this_run
    expected = f"{place} is not inside runs/a"
    assert start_refusal(Path(place), texts, config) == expected


def test_a_node_refuses_a_job_with_another_configuration(job_of_this_run):
    config, job, texts = job_of_this_run
    frozen = json.loads(texts["config.json"])
    frozen["model"]["trust_remote_code"] = True
    texts["config.json"] = json.dumps(frozen)
    (job.parent / "config.json").write_text(texts["config.json"])
    assert start_refusal(job, texts, config) == (
        "model.trust_remote_code differs from node 0's: start the same command on every node"
    )


def rendezvous_of(env: dict[str, str], name: str = "a"):
    return find_rendezvous(env, name, Path("runs"))


TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_STEP_NUM_NODES": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NODEID": "2",
    "SLURM_STEP_NODELIST": "gpu[07-10]", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0",
}  # fmt: skip


@pytest.mark.parametrize(("env", "address"), [(TORCHRUN, "gpu1"), (SLURM, "gpu07")])
def test_torchrun_and_slurm_determine_the_rank_of_a_node(env, address):
    here, first = rendezvous_of(env), rendezvous_of(env | {"RANK": "0", "SLURM_NODEID": "0"})
    assert (here.rank, here.count, here.address) == (2, 4, address)
    assert first.rank == 0
    assert (first.ports, first.secret) == (here.ports, here.secret)
    assert rendezvous_of(env, name="another run").secret != here.secret
    assert rendezvous_of(env | {"RLHF_ADDRESS": "10.0.0.1", "RLHF_PORT": "7"}).address == "10.0.0.1"
    assert rendezvous_of(env | {"RLHF_ADDRESS": "10.0.0.1", "RLHF_PORT": "7"}).ports == (7,)


@pytest.mark.parametrize(
    "env", [{}, {"WORLD_SIZE": "1"}, {"SLURM_NNODES": "4", "SLURM_NODEID": "0"}]
)
def test_a_single_node_has_no_rendezvous(env):
    assert rendezvous_of(env) is None


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, "--nproc-per-node 1"),
        ({"LOCAL_SIZE": "8", "WORLD_SIZE": "8"}, "slots=1"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "32"}, "--ntasks-per-node=1"),
        ({"WORLD_SIZE": "4"}, "RANK is not set"),
    ],
)
def test_several_processes_per_node_or_a_missing_rank_are_refused(env, expected):
    with pytest.raises(UserError, match=expected):
        rendezvous_of(env)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu[03-07,12],login", "gpu03"), ("a,b", "a"), ("one", "one"),
        ("n-[1,3]-x[2-4]", "n-1-x2"), ("gpu03.cluster.org,gpu04", "gpu03.cluster.org"),
    ],
)  # fmt: skip
def test_first_host_expands_slurms_list(hosts, first):
    assert first_host(hosts) == first

"""Several processes from the outside: where they are placed, how they end, what is said about it."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Gather, Graphs, Runtime
from rlhf_cli.launch import workers as launch
from rlhf_cli.launch.channel import LOOPBACK, listen_at
from rlhf_cli.launch.exit_report import Ending, judge
from rlhf_cli.launch.nodes import first_host, found
from rlhf_cli.launch.workers import count_gpus, num_processes
from tests.launch.starting import Started, alive, two, two_nodes, wait_until
from tests.launch.test_channel import can_connect, outer_address


def runtime(device: str = "auto", num_processes: int | None = None) -> Runtime:
    return Runtime(
        device=device, dtype="float32", num_threads=None, num_processes=num_processes,
        gather=Gather.auto, offload=False, graphs=Graphs.never, timeout=9,
        reference_path=False, compile=False, deepspeed=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("visible", "count"),
    [("", 0), ("0", 1), ("3,5,7", 3), ("-1", 0), ("0,-1,1", 1), ("GPU-8a,", 1)],
)
def test_gpus_are_counted_as_cuda_does(monkeypatch, visible, count):
    monkeypatch.setattr(launch, "version", lambda name: "2.9.0+cu130")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_a_torch_without_cuda_sees_no_gpu(monkeypatch):
    monkeypatch.setattr(launch, "version", lambda name: "2.9.0+cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert count_gpus() == 0


@pytest.mark.parametrize(
    ("device", "wanted", "gpus", "expected"),
    [
        ("auto", None, 0, 1),
        ("auto", None, 8, 8),
        ("cuda", None, 0, 1),  # the worker says what is missing
        ("cuda", 2, 4, 2),
        ("auto", 3, 0, 3),
        ("cpu", 3, 8, 3),
        ("cpu", None, 8, 1),
        ("cuda:1", None, 8, 1),
        ("cuda", 3, 2, "this machine has 2 GPUs: lower it"),
        ("auto", 2, 1, "this machine has 1 GPU: lower it"),
        ("cuda", 2, 0, "this machine has 0 GPUs"),
        ("cuda:1", 2, 8, "runtime.device=cuda:1 is one device"),
        ("mps", 2, 0, "runtime.device=mps is one device"),
    ],
)
def test_how_many_processes(monkeypatch, device, wanted, gpus, expected):
    monkeypatch.setattr(launch, "count_gpus", lambda: gpus)
    if isinstance(expected, int):
        assert num_processes(runtime(device, wanted)) == expected
    else:
        with pytest.raises(UserError, match=expected):
            num_processes(runtime(device, wanted))


def test_each_process_knows_its_place(tmp_path):
    code, errors, _ = Started(tmp_path, "runtime.num_processes=2", "tracking.project=tell").finish()
    assert code == 0, errors
    stage = tmp_path / "runs" / "default" / "sft"
    told = [json.loads((stage / f"told-{rank}.json").read_text()) for rank in range(2)]
    cores = len(os.sched_getaffinity(0))
    for rank, place in enumerate(told):
        assert place == {
            "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": str(max(1, cores // 2)),
        }  # fmt: skip
    assert not (stage / "ranks").exists()


def test_a_process_alone_has_no_place(tmp_path):
    started = Started(tmp_path, "tracking.project=tell", env={"RANK": "0", "WORLD_SIZE": "1"})
    assert started.finish()[0] == 0
    told = json.loads((tmp_path / "runs/default/sft/told-0.json").read_text())
    assert set(told.values()) == {None}


def test_a_killed_process_ends_the_others(tmp_path):
    started = two(tmp_path, "sleep")
    pids = started.ranks()
    os.kill(pids[1], signal.SIGKILL)
    code, errors, seconds = started.ended(*pids)
    assert (code, errors) == (
        1,
        "rlhf: sft failed: rank 1 was killed by signal 9\n",
    )
    assert seconds < 6


def test_a_failing_rank_is_named_and_its_last_words_shown(tmp_path):
    started = two(tmp_path, "crash_1")
    code, errors, _ = started.ended(*started.ranks())
    work = "runs/default/.sft.work"
    assert code == 1
    assert errors == (
        "  | about to divide\n"
        f"rlhf: sft failed: rank 1: ZeroDivisionError: boom (traceback: {work}/traceback-1.txt)\n"
    )
    assert "crash_1" in (tmp_path / work / "traceback-1.txt").read_text()


def test_the_cause_wins_over_the_broken_connection(tmp_path):
    code, errors, _ = two(tmp_path, "neighbour").finish()
    assert code == 1
    assert errors.startswith("rlhf: sft failed: rank 1: ZeroDivisionError: boom")


def test_what_all_ranks_find_is_said_once(tmp_path):
    code, errors, _ = two(tmp_path, "bad").finish()
    assert (code, errors) == (1, "rlhf: sft failed: the data is bad at a.jsonl:3\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_reaches_all(tmp_path, number):
    started = two(tmp_path, "sleep")
    pids = started.ranks()
    started.signal(number)
    code, errors, seconds = started.ended(*pids)
    assert code == 130
    assert errors.startswith("rlhf: stopped during sft; finished stages are kept. Go on with: rlhf")
    assert seconds < 6


def test_save_is_handed_on_and_a_stop_says_where_it_saved(tmp_path):
    started = two(tmp_path, "stop")
    pids = started.ranks()
    started.signal(signal.SIGUSR1)
    wait_until(lambda: all((started.work / f"saved-{rank}").exists() for rank in range(2)))
    assert all(map(alive, pids))
    started.signal(signal.SIGINT)
    code, errors, _ = started.ended(*pids)
    assert code == 130
    assert "stopped during sft, saved at step 3 (runs/default/.sft.work); finished" in errors


def test_save_is_ignored_by_a_stage_that_cannot(tmp_path):
    started = two(tmp_path, "sleep")
    pids = started.ranks()
    started.signal(signal.SIGUSR1)
    time.sleep(0.3)
    assert all(map(alive, pids))
    started.signal(signal.SIGINT)
    started.ended(*pids)


def test_a_second_interruption_kills(tmp_path):
    started = two(tmp_path, "deaf")
    pids = started.ranks()
    started.signal(signal.SIGINT)
    time.sleep(0.3)
    assert all(map(alive, pids))
    started.signal(signal.SIGINT)
    code, _, seconds = started.ended(*pids)
    assert code == 130
    assert seconds < 2


def test_no_worker_outlives_the_command(tmp_path):
    started = two(tmp_path, "deaf")
    pids = started.ranks()
    started.process.kill()
    started.ended(*pids)


def test_a_stop_is_a_request_once_a_stage_heeds_it(monkeypatch):
    """A third one, three seconds after the first, is no longer one."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    hangup = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    asked = launch.heed()
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert (asked.save, asked.stop) == (True, False)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # the same Ctrl-C, from the parent
        assert asked.stop
        assert launch.interruption() is asked
        now.seconds = 1.5
        signal.raise_signal(signal.SIGINT)
        now.seconds = 3.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        asked.stop = asked.save = False
        for number, handler in (before | {signal.SIGHUP: hangup}).items():
            signal.signal(number, handler)


def ending(rank: int, code: int, *, reason: str | None = None, told=False, **more) -> Ending:
    left = {"reason": reason, "expected": False, "broken": False, "saved": False, **more}
    return Ending(
        rank=rank, code=code, told=told, failure=left if reason else None,
        hang=None, traceback=f"traceback-{rank}", tail=[],
    )  # fmt: skip


def broken(rank: int) -> Ending:
    return ending(rank, 1, reason="DistBackendError: NCCL", broken=True)


@pytest.mark.parametrize(
    ("endings", "lost", "reason"),
    [
        ([broken(0), ending(1, -9)], (), "rank 1 was killed by signal 9"),
        ([broken(0), ending(1, 1, reason="KeyError: x")], (), "rank 1: KeyError: x"),
        ([broken(0), ending(1, -6)], (), "rank 1 was killed by signal 6"),
        ([broken(0), ending(1, -6, reason="KeyError: x")], (), "rank 1: KeyError: x"),
        ([broken(0), broken(1)], (), "DistBackendError: NCCL"),
        ([broken(0), ending(1, -15, told=True)], ("node 1 is gone",), "node 1 is gone"),
        ([ending(0, 1, told=True), ending(1, 7)], (), "rank 1: its process ended with code 7"),
        ([ending(0, -15, told=True)], ("node 1 is gone",), "node 1 is gone"),
    ],
)
def test_one_reason_out_of_many(endings, lost, reason):
    found = judge(endings, interrupted=False, timeout=9, lost=lost)
    assert found.reason == reason
    assert found.code != 0


def test_an_interruption_is_no_failure():
    left = [ending(0, 130), broken(1)]
    assert judge(left, interrupted=True, timeout=9).code == 130
    assert judge([ending(0, 0), ending(1, 0)], interrupted=False, timeout=9).code == 0


def test_a_stage_that_was_done_before_it_could_stop_is_done():
    found = judge([ending(0, 0), ending(1, 0)], interrupted=True, timeout=9)
    assert (found.code, found.interrupted) == (0, True)


def at(env: dict[str, str], name: str = "a"):
    return found(env, name, Path("runs"))


TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_STEP_NUM_NODES": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NODEID": "2",
    "SLURM_STEP_NODELIST": "gpu[07-10]", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0",
}  # fmt: skip


@pytest.mark.parametrize(("env", "address"), [(TORCHRUN, "gpu1"), (SLURM, "gpu07")])
def test_every_engine_tells_where_a_node_stands(env, address):
    here, driver = at(env), at(env | {"RANK": "0", "SLURM_NODEID": "0"})
    assert (here.rank, here.count, here.address) == (2, 4, address)
    assert driver.rank == 0
    assert (driver.ports, driver.secret) == (here.ports, here.secret)
    assert at(env, name="another run").secret != here.secret
    assert at(env | {"RLHF_ADDRESS": "10.0.0.1", "RLHF_PORT": "7"}).address == "10.0.0.1"
    assert at(env | {"RLHF_ADDRESS": "10.0.0.1", "RLHF_PORT": "7"}).ports == (7,)


@pytest.mark.parametrize(
    "env", [{}, {"WORLD_SIZE": "1"}, {"SLURM_NNODES": "4", "SLURM_NODEID": "0"}]
)
def test_a_machine_alone_waits_for_nobody(env):
    assert at(env) is None


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, "--nproc-per-node 1"),
        ({"LOCAL_SIZE": "8", "WORLD_SIZE": "8"}, "slots=1"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "32"}, "--ntasks-per-node=1"),
        ({"WORLD_SIZE": "4"}, "RANK is not set"),
    ],
)
def test_wrong_starts_are_refused(env, expected):
    with pytest.raises(UserError, match=expected):
        at(env)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu[03-07,12],login", "gpu03"), ("a,b", "a"), ("one", "one"),
        ("n-[1,3]-x[2-4]", "n-1-x2"), ("gpu03.cluster.org,gpu04", "gpu03.cluster.org"),
    ],
)  # fmt: skip
def test_the_first_host_of_slurms_list(hosts, first):
    assert first_host(hosts) == first


def free_port() -> int:
    with listen_at("127.0.0.1") as probe:
        return probe.getsockname()[1]


@pytest.mark.parametrize("engine", ["torchrun", "srun"])
def test_two_nodes_are_one_run(tmp_path, engine):
    driver, other = two_nodes(tmp_path, "tell", free_port(), engine)
    assert driver.finish()[:2] == (0, "")
    assert other.finish()[:2] == (0, "")
    assert other.out == ""
    told = [json.loads((tmp_path / f"runs/default/sft/told-{r}.json").read_text()) for r in (0, 1)]
    assert [place["RANK"] for place in told] == ["0", "1"]
    assert {place["WORLD_SIZE"] for place in told} == {"2"}
    assert {place["LOCAL_WORLD_SIZE"] for place in told} == {"1"}
    assert "sft: done in" in driver.out


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        ("worker", "sft failed: rank 1 was killed by signal 9"),
        ("other", "sft failed: node 1 is gone"),
        ("driver", ""),
    ],
)
def test_a_dead_node_ends_the_run(tmp_path, victim, reason):
    driver, other = two_nodes(tmp_path, "sleep", free_port())
    pids = driver.ranks()
    dead = {"worker": pids[1], "other": other.process.pid, "driver": driver.process.pid}[victim]
    os.kill(dead, signal.SIGKILL)
    (code, errors, seconds), (other_code, other_errors, _) = driver.finish(), other.ended(*pids)
    assert reason in errors
    assert seconds < 8
    assert code != 0
    assert other_code != 0
    if victim == "driver":
        assert other_errors == "rlhf: node 1: node 0 is gone\n"


def test_one_node_interrupted_is_all_of_them(tmp_path):
    driver, other = two_nodes(tmp_path, "sleep", free_port())
    pids = driver.ranks()
    driver.signal(signal.SIGINT)
    assert driver.finish()[0] == 130
    assert other.ended(*pids)[0] == 130


@pytest.mark.dist
def test_two_nodes_add_up(tmp_path):
    driver, other = two_nodes(tmp_path, "one_sum", free_port())
    assert driver.finish()[:2] == (0, "")
    assert other.finish()[0] == 0
    sums = [(tmp_path / f"runs/default/sft/sum-{rank}").read_text() for rank in (0, 1)]
    assert sums == ["3", "3"]


def sockets(pid: int) -> list:
    """Those at which a process listens."""
    open_ones = psutil.Process(pid).net_connections("tcp")
    return [connection for connection in open_ones if connection.status == psutil.CONN_LISTEN]


@pytest.mark.dist
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_breaks_a_collective(tmp_path, victim):
    started = two(tmp_path, "sums")
    pids = started.ranks()
    listening = {connection.laddr for pid in pids for connection in sockets(pid)}
    assert {address.ip for address in listening} == {LOOPBACK}
    assert not any(can_connect(outer_address(), address.port) for address in listening)
    os.kill(pids[victim], signal.SIGKILL)
    code, errors, seconds = started.ended(*pids)
    expected = f"rlhf: sft failed: rank {victim} was killed by signal 9\n"
    assert (code, errors) == (1, expected)
    assert seconds < 8


@pytest.mark.dist
def test_processes_that_have_finished_leave_quietly(tmp_path):
    assert two(tmp_path, "one_sum").finish()[:2] == (0, "")

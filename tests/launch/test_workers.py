"""Workers of a run, observed from outside: their ranks, how they end, and what is reported."""

import json
import os
import signal
import time

import psutil
import pytest

from rlhf_cli.launch.channel import LOOPBACK, listen
from tests.support.command_line import Started, alive, two, two_nodes, wait_until
from tests.support.sockets import can_connect, outer_address


def test_each_worker_gets_its_rank_world_size_and_threads(tmp_path):
    code, errors, _ = Started(tmp_path, "runtime.num_processes=2", "tracking.project=tell").finish()
    assert code == 0, errors
    stage = tmp_path / "runs" / "default" / "sft"
    variables = [json.loads((stage / f"told-{rank}.json").read_text()) for rank in range(2)]
    cores = len(os.sched_getaffinity(0))
    for rank, environment in enumerate(variables):
        assert environment == {
            "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": str(max(1, cores // 2)),
        }  # fmt: skip
    assert not (stage / "ranks").exists()


def test_a_single_worker_gets_no_variables_of_a_process_group(tmp_path):
    started = Started(tmp_path, "tracking.project=tell", env={"RANK": "0", "WORLD_SIZE": "1"})
    assert started.finish()[0] == 0
    variables = json.loads((tmp_path / "runs/default/sft/told-0.json").read_text())
    assert set(variables.values()) == {None}


def test_a_killed_worker_ends_the_others_and_is_reported(tmp_path):
    started = two(tmp_path, "sleep")
    pids = started.ranks()
    os.kill(pids[1], signal.SIGKILL)
    code, errors, seconds = started.ended(*pids)
    assert (code, errors) == (
        1,
        "rlhf: sft failed: rank 1 was killed by signal 9\n",
    )
    assert seconds < 6


def test_a_failing_rank_is_named_with_its_traceback_and_last_lines_of_output(tmp_path):
    started = two(tmp_path, "crash_1")
    code, errors, _ = started.ended(*started.ranks())
    work = "runs/default/.sft.work"
    assert code == 1
    assert errors == (
        "  | about to divide\n"
        f"rlhf: sft failed: rank 1: ZeroDivisionError: boom (traceback: {work}/traceback-1.txt)\n"
    )
    assert "crash_1" in (tmp_path / work / "traceback-1.txt").read_text()


def test_the_error_is_reported_and_not_the_connection_that_it_broke(tmp_path):
    code, errors, _ = two(tmp_path, "neighbour").finish()
    assert code == 1
    assert errors.startswith("rlhf: sft failed: rank 1: ZeroDivisionError: boom")


def test_an_error_of_all_ranks_is_reported_once(tmp_path):
    code, errors, _ = two(tmp_path, "bad").finish()
    assert (code, errors) == (1, "rlhf: sft failed: the data is bad at a.jsonl:3\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_stops_all_workers(tmp_path, number):
    started = two(tmp_path, "sleep")
    pids = started.ranks()
    started.signal(number)
    code, errors, seconds = started.ended(*pids)
    assert code == 130
    assert errors.startswith(
        "rlhf: stopped during sft; finished stages are kept. Resume with: rlhf"
    )
    assert seconds < 6


def test_sigusr1_reaches_all_workers_and_a_stop_reports_the_saved_step(tmp_path):
    started = two(tmp_path, "stop")
    pids = started.ranks()
    started.signal(signal.SIGUSR1)
    wait_until(lambda: all((started.work / f"saved-{rank}").exists() for rank in range(2)))
    assert all(map(alive, pids))
    started.signal(signal.SIGINT)
    code, errors, _ = started.ended(*pids)
    assert code == 130
    assert "stopped during sft, saved at step 3 (runs/default/.sft.work); finished" in errors


def test_sigusr1_is_ignored_by_a_stage_without_checkpoints(tmp_path):
    started = two(tmp_path, "sleep")
    pids = started.ranks()
    started.signal(signal.SIGUSR1)
    time.sleep(0.3)
    assert all(map(alive, pids))
    started.signal(signal.SIGINT)
    started.ended(*pids)


def test_a_second_interrupt_kills_the_workers(tmp_path):
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


def free_port() -> int:
    with listen("127.0.0.1") as probe:
        return probe.getsockname()[1]


@pytest.mark.parametrize("engine", ["torchrun", "srun"])
def test_two_nodes_form_one_run(tmp_path, engine):
    driver, other = two_nodes(tmp_path, "tell", free_port(), engine)
    assert driver.finish()[:2] == (0, "")
    assert other.finish()[:2] == (0, "")
    assert other.out == ""
    variables = [
        json.loads((tmp_path / f"runs/default/sft/told-{r}.json").read_text()) for r in (0, 1)
    ]
    assert [environment["RANK"] for environment in variables] == ["0", "1"]
    assert {environment["WORLD_SIZE"] for environment in variables} == {"2"}
    assert {environment["LOCAL_WORLD_SIZE"] for environment in variables} == {"1"}
    assert "sft: done in" in driver.out


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        pytest.param("worker", "sft failed: rank 1 was killed by signal 9", marks=pytest.mark.slow),
        ("other", "sft failed: the connection to node 1 was lost"),
        ("driver", ""),
    ],
)
def test_a_killed_worker_or_node_ends_the_run_on_both_nodes(tmp_path, victim, reason):
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
        assert other_errors == "rlhf: node 1: the connection to node 0 was lost\n"


def test_an_interrupt_of_one_node_stops_both(tmp_path):
    driver, other = two_nodes(tmp_path, "sleep", free_port())
    pids = driver.ranks()
    driver.signal(signal.SIGINT)
    assert driver.finish()[0] == 130
    assert other.ended(*pids)[0] == 130


@pytest.mark.dist
def test_all_reduce_sums_over_two_nodes(tmp_path):
    driver, other = two_nodes(tmp_path, "one_sum", free_port())
    assert driver.finish()[:2] == (0, "")
    assert other.finish()[0] == 0
    sums = [(tmp_path / f"runs/default/sft/sum-{rank}").read_text() for rank in (0, 1)]
    assert sums == ["3", "3"]


def listening_sockets(pid: int) -> list:
    """Return the sockets at which a process listens."""
    open_ones = psutil.Process(pid).net_connections("tcp")
    return [connection for connection in open_ones if connection.status == psutil.CONN_LISTEN]


@pytest.mark.dist
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_killed_in_a_collective_is_reported(tmp_path, victim):
    started = two(tmp_path, "sums")
    pids = started.ranks()
    listening = {connection.laddr for pid in pids for connection in listening_sockets(pid)}
    assert {address.ip for address in listening} == {LOOPBACK}
    assert not any(can_connect(outer_address(), address.port) for address in listening)
    os.kill(pids[victim], signal.SIGKILL)
    code, errors, seconds = started.ended(*pids)
    expected = f"rlhf: sft failed: rank {victim} was killed by signal 9\n"
    assert (code, errors) == (1, expected)
    assert seconds < 8


@pytest.mark.dist
def test_workers_that_finish_after_a_collective_print_no_errors(tmp_path):
    assert two(tmp_path, "one_sum").finish()[:2] == (0, "")

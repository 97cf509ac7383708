"""Hanging processes are reported within the timeout, with the place where they wait."""

import itertools
import os
import signal
import sys
import threading
import time

import pytest

from rlhf_cli.config.errors import ExitCode
from rlhf_cli.launch.exit_report import WorkerExit, hang_reason, run_result
from rlhf_cli.runtime import watchdog
from tests.support.command_line import Started, two


@pytest.fixture
def watcher(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "_beat", None)
    return watchdog._Watcher(tmp_path, 1, 10.0, several=True)


def test_cpu_time_counts_as_progress_before_the_first_heartbeat(watcher, monkeypatch):
    """Reading data and models sends no heartbeats, and neither does a stopped process."""
    watcher.timeout, used = 100.0, iter([0.0, 0.2, 0.7, 0.71, 0.72])
    monkeypatch.setattr(watchdog.time, "process_time", lambda: next(used))
    idle = []
    for _ in range(5):
        watcher.check(2.0)
        idle.append(watcher.idle)
    assert idle == [2.0, 0.0, 0.0, 2.0, 4.0]


def test_cpu_time_used_inside_a_collective_is_no_progress(watcher, monkeypatch):
    watcher.timeout, used = 100.0, itertools.count(10)
    monkeypatch.setattr(watchdog.time, "process_time", lambda: next(used))
    monkeypatch.setattr(watcher, "position", lambda: {"collective": "open_world"})
    for _ in range(3):
        watcher.check(1.0)
    assert watcher.idle == 3.0


def test_cpu_time_is_no_progress_after_the_first_heartbeat(watcher, monkeypatch):
    used = itertools.count(10)
    monkeypatch.setattr(watchdog.time, "process_time", lambda: next(used))
    watchdog.heartbeat("step 1")
    watcher.check(1.0)
    watcher.check(6.0)
    assert watcher.idle == 6.0


def test_a_heartbeat_with_an_unchanged_text_resets_the_idle_time(watcher):
    watchdog.heartbeat("step 1")
    watcher.check(1.0)
    watcher.check(6.0)
    assert watcher.idle == 6.0
    watchdog.heartbeat("step 1")
    watcher.check(6.0)
    assert watcher.idle == 0


def test_a_paused_watchdog_counts_no_idle_time(watcher):
    watcher.timeout = 100.0
    with watchdog.paused("hashing"):
        for _ in range(5):
            watcher.check(8.0)
        assert watcher.idle == 0
    watcher.check(1.0)
    watcher.check(6.0)
    assert (watcher.idle, watcher.seen) == (6.0, ("hashing",))


def test_a_single_process_warns_once_and_escapes_control_characters(watcher, monkeypatch, capsys):
    watcher.several, watcher.timeout = False, 5.0
    watchdog.heartbeat("reading \x1b[2J\n.jsonl")
    for _ in range(4):
        watcher.check(3.0)
    warning = capsys.readouterr().err
    assert warning.startswith("rlhf: no progress for 5 s, at ")
    assert warning.endswith(", reading \\x1b[2J\\n.jsonl\n") and warning.count("\n") == 1


def test_with_heartbeat_beats_for_every_item(watcher):
    for number, item in enumerate(watchdog.with_heartbeat("abc", "writing"), start=1):
        watcher.check(1.0)
        watcher.check(6.0)
        assert (item, watcher.idle) == ("xabc"[number], 6.0)
        assert watcher.seen == ("writing",)


def test_a_working_rank_writes_its_state_when_another_rank_hangs(watcher, tmp_path):
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks" / "rank-0.json").write_text("{}")
    watchdog.heartbeat("step 4")
    watcher.check(1.0)
    assert '"doing": "step 4"' in (tmp_path / "ranks" / "rank-1.json").read_text()


def test_the_position_is_a_line_of_the_stages_code(watcher):
    found = {}
    names = {"__name__": "rlhf_cli.stages.sft", "found": found}
    code = compile(
        "def learn(look): found.update(look())\nlearn(look)", "/x/rlhf_cli/stages/sft.py", "exec"
    )
    looking = threading.Event()
    thread = threading.Thread(target=lambda: (looking.wait(), found.update(watcher.position())))
    thread.start()
    exec(code, names | {"look": lambda: looking.set() or thread.join() or {}})
    assert found["where"] == "stages/sft.py:1 learn"
    assert found["collective"] is None


def test_the_collective_is_the_innermost_function_of_torch_distributed():
    names = {"__name__": "torch.distributed.distributed_c10d"}
    source = (
        "import sys\ndef wrapper(): return sys._getframe()\ndef all_reduce(): return wrapper()\n"
    )
    exec(source, names)
    assert watchdog._collective(watchdog._stack(names["all_reduce"]())) == "all_reduce"
    assert watchdog._collective(watchdog._stack(None)) is None


def collective_in(*calls: tuple[str, str]) -> str | None:
    """The collective of a stack of (module, function), outermost first."""
    frame = sys._getframe
    for module, name in reversed(calls):
        names = {"__name__": module, "below": frame}
        exec(f"def {name}(*depth): return below()", names)
        frame = names[name]
    stack = [f for f in watchdog._stack(frame()) if watchdog._module(f) != __name__]
    return watchdog._collective(stack)


COORDINATOR = "deepspeed.runtime.zero.partitioned_param_coordinator"
PARTITION = "deepspeed.runtime.zero.partition_parameters"


@pytest.mark.parametrize(
    ("calls", "collective"),
    [
        ([("rlhf_cli.stages.sft", "learn"), (COORDINATOR, "fetch"), (PARTITION, "wait")], "fetch"),
        ([(COORDINATOR, "fetch"), (PARTITION, "wait"), ("deepspeed.utils.nvtx", "wrapped_fn"),
          ("deepspeed.accelerator.cuda_accelerator", "synchronize"), ("torch.cuda", "synchronize")],
         "fetch"),
        ([(PARTITION, "gather"), ("deepspeed.comm.comm", "all_gather")], "all_gather"),
        ([(PARTITION, "wrapper"), ("transformers.models", "read")], None),
        ([(PARTITION, "partition_after"), ("rlhf_cli.models.load", "fill")], None),
        ([("rlhf_cli.runtime.world", "open_world"), ("rlhf_cli.runtime.world", "_open_store")],
         "open_world"),
        ([("rlhf_cli.runtime.world", "all_reduce_max")], "all_reduce_max"),
    ],
)  # fmt: skip
def test_waiting_in_deepspeeds_partitioning_counts_as_waiting_in_a_collective(calls, collective):
    """ZeRO-3 starts a collective in one place and waits for it in another."""
    assert collective_in(*calls) == collective


def hung_exit(
    rank: int, collective: str | None, where: str, *, since: float = 600, code=ExitCode.HUNG
) -> WorkerExit:
    hang = {
        "rank": rank,
        "doing": "step 12",
        "collective": collective,
        "where": where,
        "since": since,
    }
    return WorkerExit(
        rank=rank, code=code, terminated=False, failure=None, hang=hang if where else None,
        traceback="", log_tail=[],
    )  # fmt: skip


def test_the_report_of_a_hang_names_the_awaited_ranks_first():
    learn = "stages/sft.py:110 learn"
    reason = hang_reason(
        [
            hung_exit(0, "all_reduce", learn),
            hung_exit(1, None, "data/collate.py:40 pack"),
            hung_exit(2, None, ""),
            hung_exit(3, "all_reduce", learn),
            hung_exit(4, None, "stages/ppo/rollout.py:9 sample", since=2),
        ],
        600,
    )
    assert reason == (
        "no progress for 600 s: rank 1 is in no collective (data/collate.py:40 pack, step 12); "
        "rank 2 does not answer; rank 4 is at work (stages/ppo/rollout.py:9 sample, step 12); "
        "ranks 0, 3 wait in all_reduce (stages/sft.py:110 learn, step 12)"
    )


def test_a_hang_is_reported_before_the_connections_that_it_breaks():
    late = hung_exit(1, None, "", code=1)
    late.failure = {"reason": "gloo", "expected": False, "broken": True, "saved": False}
    found = run_result([late, hung_exit(0, "all_reduce", "a.py:1 f")], interrupted=False, timeout=5)
    assert found.reason.startswith("no progress for 5 s: rank 1 does not answer; rank 0 waits")


def test_a_slow_single_process_gets_one_warning_and_finishes(tmp_path):
    started = Started(tmp_path, "tracking.project=slow", "runtime.timeout=1")
    code, errors, _ = started.finish()
    assert code == 0
    assert errors.count("\n") == 1
    assert errors.startswith("rlhf: no progress for 1 s, at ")
    assert "slow" in errors


def test_ranks_that_hang_outside_a_collective_are_named(tmp_path):
    code, errors, _ = two(tmp_path, "slow", "runtime.timeout=5").finish()
    assert code == 1
    assert "no progress for 5 s: ranks 0, 1 are in no collective (" in errors


@pytest.mark.dist
def test_a_rank_stopped_before_the_process_group_opens_is_named(tmp_path):
    started = two(tmp_path, "early", "runtime.timeout=3")
    pids = started.ranks()
    os.kill(pids[0], signal.SIGSTOP)
    (started.work / "go").touch()
    code, errors, seconds = started.ended(*pids)
    assert code == 1
    assert errors.startswith(
        "rlhf: sft failed: no progress for 3 s: rank 0 does not answer; rank 1 waits in open_world ("
    )
    assert errors.count("\n") == 1  # no frames of C++
    assert seconds < 25


@pytest.mark.dist
def test_a_stopped_rank_is_named(tmp_path):
    started = two(tmp_path, "sums", "runtime.timeout=5")
    pids = started.ranks()
    os.kill(pids[1], signal.SIGSTOP)
    code, errors, seconds = started.ended(*pids)
    assert code == 1
    assert errors.startswith(
        "rlhf: sft failed: no progress for 5 s: rank 1 does not answer; "
        "rank 0 waits in all_reduce (runtime/world.py:"
    )
    assert seconds < 25


@pytest.mark.dist
def test_a_rank_that_never_reaches_the_collective_is_named(tmp_path):
    started = two(tmp_path, "nap", "runtime.timeout=5")
    pids = started.ranks()
    before = time.monotonic()
    code, errors, _ = started.ended(*pids)
    assert code == 1
    assert "rank 1 is in no collective (" in errors
    assert "nap, step 2); rank 0 waits in all_reduce (runtime/world.py:" in errors
    assert time.monotonic() - before < 25

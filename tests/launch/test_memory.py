"""That memory ran out is said where somebody has counted it, and which keys need less."""

import signal

import pytest
import torch

from rlhf_cli.launch.exit_report import judge, left_behind
from rlhf_cli.launch.memory import needs_less, oom_kills, ran_out

UNIFIED = "0::/job/step"
EARLIER = "4:cpu,memory:/job\n3:pids:/job\n0::/"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (UNIFIED, {"sys/fs/cgroup/job/step/memory.events": "oom 9\noom_kill 2\n"}, 2),
        (UNIFIED, {"sys/fs/cgroup/memory.events": "oom_kill 1", "proc/vmstat": "oom_kill 7"}, 1),
        (EARLIER, {"sys/fs/cgroup/memory/job/memory.oom_control": "under_oom 0\noom_kill 3"}, 3),
        (EARLIER, {"proc/vmstat": "pgfault 5\noom_kill 4\n"}, 4),
        (UNIFIED, {"proc/vmstat": "pgfault 5\n"}, None),
        (None, {}, None),
    ],
)
def test_kills_are_counted_by_the_group_or_by_the_kernel(groups, files, expected, tmp_path):
    for name, text in (({"proc/self/cgroup": groups} if groups else {}) | files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(tmp_path) == expected


@pytest.mark.parametrize(
    ("code", "counted", "told"),
    [
        (-9, True, "killed by signal 9: memory ran out; lower the stage's batch.microbatch or"),
        (-9, False, "killed by signal 9"),
        (-15, True, "killed by signal 15"),
    ],
)
def test_a_kill_is_called_want_of_memory_where_it_was(code, counted, told, tmp_path):
    ending = left_behind(tmp_path, 0, code, told=False, out_of_memory=counted)
    reason = judge([ending], interrupted=False, timeout=9.0).reason
    assert reason.startswith(told)
    assert ("memory" in reason) is ("memory" in told)


def test_the_allocators_of_torch_and_python_are_known_by_what_they_raise():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert ran_out(refused.value)
    assert ran_out(MemoryError())
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"))
    assert ran_out(RuntimeError("CUDA error: out of memory"))
    assert not ran_out(RuntimeError("shapes differ"))
    assert not ran_out(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        ("sft", "sft.batch.microbatch or sft.batch.max_tokens"),
        ("ppo", "model.gradient_checkpointing=true"),
        ("evaluate", "evaluation.batch"),
        (None, "the stage's batch.microbatch"),
    ],
)
def test_the_keys_to_lower_are_those_of_the_stage(stage, keys):
    assert keys in needs_less(stage)


def test_a_crew_counts_from_its_start(monkeypatch, tmp_path):
    from rlhf_cli.launch import worker_group as crew

    counts = iter([3, 3, 4])
    monkeypatch.setattr(crew, "oom_kills", lambda: next(counts))
    here = crew.Crew(tmp_path / "job.json", crew.Place(here=0), runtime=_Patience())
    here.codes = {0: -signal.SIGKILL}
    assert [[one.out_of_memory for one in here.endings()] for _ in range(2)] == [[False], [True]]


class _Patience:
    timeout = 9.0

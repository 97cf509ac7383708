"""Out-of-memory kills: how they are counted, how they are reported, and which keys reduce use."""

import signal

import pytest
import torch

from rlhf_cli.artifacts.layout import WorkFolder
from rlhf_cli.launch import worker_group
from rlhf_cli.launch.exit_report import read_exit, run_result
from rlhf_cli.launch.memory import is_out_of_memory, memory_remedy, oom_kills
from rlhf_cli.launch.worker_group import LocalRanks, WorkerGroup

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
def test_out_of_memory_kills_are_read_from_the_cgroup_or_else_the_kernel(
    groups, files, expected, tmp_path
):
    for name, text in (({"proc/self/cgroup": groups} if groups else {}) | files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(tmp_path) == expected


@pytest.mark.parametrize(
    ("code", "counted", "expected"),
    [
        (-9, True, "killed by signal 9: memory ran out; lower the stage's batch.microbatch or"),
        (-9, False, "killed by signal 9"),
        (-15, True, "killed by signal 15"),
    ],
)
def test_a_sigkill_is_reported_as_out_of_memory_only_when_one_was_counted(
    code, counted, expected, tmp_path
):
    found = read_exit(WorkFolder(tmp_path), 0, code, terminated=False, out_of_memory=counted)
    reason = run_result([found], interrupted=False, timeout=9.0).reason
    assert reason.startswith(expected)
    assert ("memory" in reason) is ("memory" in expected)


def test_out_of_memory_errors_of_torch_and_python_are_recognized():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        ("sft", "sft.batch.microbatch or sft.batch.max_tokens"),
        ("ppo", "model.gradient_checkpointing=true"),
        ("evaluate", "evaluation.batch"),
        (None, "the stage's batch.microbatch"),
    ],
)
def test_the_remedy_names_the_keys_of_the_stage(stage, keys):
    assert keys in memory_remedy(stage)


def test_a_worker_group_counts_only_the_kills_after_its_start(monkeypatch, tmp_path):
    counts = iter([3, 3, 4])
    monkeypatch.setattr(worker_group, "oom_kills", lambda: next(counts))
    group = WorkerGroup(
        tmp_path / "job.json", LocalRanks(local_world_size=0), runtime=_RuntimeOptions()
    )
    group.exit_codes = {0: -signal.SIGKILL}
    assert [[one.out_of_memory for one in group.exits()] for _ in range(2)] == [[False], [True]]


class _RuntimeOptions:
    timeout = 9.0

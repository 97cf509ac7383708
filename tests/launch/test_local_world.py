"""How many workers a node starts."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Gather, Graphs, Runtime
from rlhf_cli.launch import local_world
from rlhf_cli.launch.local_world import count_gpus, local_world_size


def runtime(device: str = "auto", num_processes: int | None = None) -> Runtime:
    return Runtime(
        device=device, dtype="float32", num_threads=None, num_processes=num_processes,
        gather=Gather.auto, offload=False, cuda_graphs=Graphs.never, timeout=9,
        reference_implementation=False, compile=False, deepspeed=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("visible", "count"),
    [("", 0), ("0", 1), ("3,5,7", 3), ("-1", 0), ("0,-1,1", 1), ("GPU-8a,", 1)],
)
def test_cuda_visible_devices_is_counted_as_cuda_counts_it(monkeypatch, visible, count):
    monkeypatch.setattr(local_world, "version", lambda name: "2.9.0+cu130")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_a_build_of_torch_without_cuda_counts_no_gpus(monkeypatch):
    monkeypatch.setattr(local_world, "version", lambda name: "2.9.0+cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert count_gpus() == 0


@pytest.mark.parametrize(
    ("device", "wanted", "gpus", "expected"),
    [
        ("auto", None, 0, 1),
        ("auto", None, 8, 8),
        ("cuda", None, 0, 1),  # the worker reports what is missing
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
def test_local_world_size_follows_from_the_device_the_gpus_and_num_processes(
    monkeypatch, device, wanted, gpus, expected
):
    monkeypatch.setattr(local_world, "count_gpus", lambda: gpus)
    if isinstance(expected, int):
        assert local_world_size(runtime(device, wanted)) == expected
    else:
        with pytest.raises(UserError, match=expected):
            local_world_size(runtime(device, wanted))

"""Collectives, and which of them count as waiting for other processes."""

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist

from rlhf_cli.runtime import world
from rlhf_cli.runtime.world import Group, World


@pytest.fixture
def group_and_waits(monkeypatch):
    """Return (a list that gets an entry per wait, a group of two ranks with equal values).

    The main process broadcasts "the main one's".
    """
    found = []

    @contextmanager
    def waiting():
        found.append("waits")
        yield

    def all_reduce(tensor, op=dist.ReduceOp.SUM):
        tensor.mul_({dist.ReduceOp.SUM: 2, dist.ReduceOp.MAX: 1}[op])

    def broadcast(objects, *, src, device):
        objects[0] = "the main one's" if src == 0 else "another's"

    monkeypatch.setattr(world.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(world.dist, "broadcast_object_list", broadcast)
    return found, Group(waiting=waiting)


@pytest.mark.parametrize(
    ("name", "given", "result"),
    [
        ("all_reduce_max", (3,), 3),
        ("any", (True,), True),
        ("any", (False,), False),
        ("broadcast", ("my own",), "the main one's"),
        ("sum_scalars", ({"a": 1.5},), {"a": 3.0}),
        ("barrier", (), None),
    ],
)
def test_exchanging_python_values_counts_as_waiting(group_and_waits, name, given, result):
    found, group = group_and_waits
    assert getattr(group, name)(*given) == result
    assert found == ["waits"]


def test_all_reduce_of_tensors_does_not_count_as_waiting(group_and_waits):
    found, group = group_and_waits
    tensor = torch.ones(2)
    assert group.all_reduce(tensor).tolist() == [2, 2]
    assert tensor.tolist() == [1, 1]  # a new tensor
    assert found == []


def test_a_world_of_one_process_returns_its_own_values():
    alone = World()
    assert (alone.rank, alone.size, alone.is_main) == (0, 1, True)
    assert alone.all_reduce(torch.ones(2)).tolist() == [1, 1]
    assert (alone.all_reduce_max(3), alone.any(True), alone.broadcast("x")) == (3, True, "x")
    assert alone.sum_scalars({"a": 0.1, "b": 2}) == {"a": 0.1, "b": 2.0}

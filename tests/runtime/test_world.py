"""Waiting for other processes is told apart from working with them."""

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist

from rlhf_cli.runtime import world
from rlhf_cli.runtime.world import Group, World


@pytest.fixture
def opened(monkeypatch):
    """Times that a group says it waits, and the group: another process has the same numbers, and the
    main one agrees on "the main one's"."""
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
    ("name", "given", "answer"),
    [
        ("all_reduce_max", (3,), 3),
        ("any", (True,), True),
        ("any", (False,), False),
        ("broadcast", ("my own",), "the main one's"),
        ("sum_scalars", ({"a": 1.5},), {"a": 3.0}),
        ("barrier", (), None),
    ],
)
def test_a_number_is_waited_for(opened, name, given, answer):
    found, group = opened
    assert getattr(group, name)(*given) == answer
    assert found == ["waits"]


def test_to_add_up_tensors_is_work(opened):
    found, group = opened
    mine = torch.ones(2)
    assert group.all_reduce(mine).tolist() == [2, 2]
    assert mine.tolist() == [1, 1]  # a new tensor
    assert found == []


def test_a_process_alone_is_a_world_too():
    alone = World()
    assert (alone.rank, alone.size, alone.is_main) == (0, 1, True)
    assert alone.all_reduce(torch.ones(2)).tolist() == [1, 1]
    assert (alone.all_reduce_max(3), alone.any(True), alone.broadcast("x")) == (3, True, "x")
    assert alone.sum_scalars({"a": 0.1, "b": 2}) == {"a": 0.1, "b": 2.0}

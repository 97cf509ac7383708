"""Waiting for other processes is told apart from working with them."""

from contextlib import contextmanager

import pytest
import torch

from rlhf_cli.runtime import world
from rlhf_cli.runtime.world import Group


@pytest.fixture
def opened(monkeypatch):
    """Times that a group of one said it waits, and the group."""
    found = []

    @contextmanager
    def waiting():
        found.append("waits")
        yield

    monkeypatch.setattr(world.dist, "all_reduce", lambda *tensors, **how: None)
    monkeypatch.setattr(world.dist, "broadcast_object_list", lambda *objects, **how: None)
    return found, Group(waiting=waiting)


@pytest.mark.parametrize(
    ("name", "given", "answer"),
    [
        ("largest", (3,), 3),
        ("any", (True,), True),
        ("any", (False,), False),
        ("agreed", ("yes",), "yes"),
        ("totals", ({"a": 1.5},), {"a": 1.5}),
        ("barrier", (), None),
    ],
)
def test_a_number_is_waited_for(opened, name, given, answer):
    found, group = opened
    assert getattr(group, name)(*given) == answer
    assert found == ["waits"]


def test_to_add_up_tensors_is_work(opened):
    found, group = opened
    assert group.sum(torch.ones(2)).tolist() == [1, 1]
    assert found == []

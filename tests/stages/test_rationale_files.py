"""What is drawn so far: lines after the last step that was saved are removed, lost ones are named."""

from dataclasses import replace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.stages.rationale_files import append_drawn, keep_drawn, read_drawn
from tests.support.rationales import GOOD


@pytest.fixture
def drawn(tmp_path):
    """A file of three steps, of two rationales each, and a line torn by a crash."""
    path = tmp_path / "drawn.jsonl"
    for step in (1, 2, 3):
        append_drawn(path, step, [replace(GOOD, row=10 * step + i, gain=0.1) for i in range(2)])
    with path.open("a") as stream:
        stream.write('{"step": 4, "ta')
    return path


@pytest.mark.parametrize("done", [0, 1, 3])
def test_what_came_after_the_last_saved_step_is_removed(drawn, done):
    keep_drawn(drawn, done)
    found = read_drawn(drawn)
    assert [one.row for one in found] == [10 * s + i for s in range(1, done + 1) for i in range(2)]
    assert all(replace(one, row=0, gain=0.5) == GOOD for one in found)


def test_lost_rationales_are_named(drawn):
    with pytest.raises(UserError, match=r"drawn.jsonl has lost .* of the 5 steps .* resume=never"):
        keep_drawn(drawn, 5)
    drawn.unlink()
    with pytest.raises(UserError, match="has lost rationales"):
        keep_drawn(drawn, 1)


def test_nothing_is_drawn_at_the_start(tmp_path):
    keep_drawn(tmp_path / "drawn.jsonl", 0)
    assert read_drawn(tmp_path / "drawn.jsonl") == []

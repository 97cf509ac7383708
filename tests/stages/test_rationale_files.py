"""The file of sampled rationales: lines after the last checkpoint are removed."""

from dataclasses import replace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.stages.rationale_files import append_drawn, keep_drawn, read_drawn
from tests.support.rationales import GOOD


@pytest.fixture
def drawn_file(tmp_path):
    """Return a file of three steps of two rationales each, and a line cut off by a crash."""
    path = tmp_path / "drawn.jsonl"
    for step in (1, 2, 3):
        append_drawn(path, step, [replace(GOOD, row=10 * step + i, gain=0.1) for i in range(2)])
    with path.open("a") as stream:
        stream.write('{"step": 4, "ta')
    return path


@pytest.mark.parametrize("done", [0, 1, 3])
def test_rationales_after_the_last_checkpoint_are_removed(drawn_file, done):
    keep_drawn(drawn_file, done)
    found = read_drawn(drawn_file)
    assert [one.row for one in found] == [10 * s + i for s in range(1, done + 1) for i in range(2)]
    assert all(replace(one, row=0, gain=0.5) == GOOD for one in found)


def test_lost_rationales_are_refused(drawn_file):
    with pytest.raises(UserError, match=r"drawn.jsonl has lost .* of the 5 steps .* resume=never"):
        keep_drawn(drawn_file, 5)
    drawn_file.unlink()
    with pytest.raises(UserError, match="has lost rationales"):
        keep_drawn(drawn_file, 1)


def test_a_stage_without_a_file_of_rationales_has_none(tmp_path):
    keep_drawn(tmp_path / "drawn.jsonl", 0)
    assert read_drawn(tmp_path / "drawn.jsonl") == []

"""The file of what a stage has sampled: lines after the last checkpoint are removed."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.stages.drawn_files import append_drawn, keep_drawn, read_drawn


@pytest.fixture
def drawn_file(tmp_path):
    """Return a file of three steps of two rows each, and a line cut off by a crash."""
    path = tmp_path / "drawn.jsonl"
    for step in (1, 2, 3):
        append_drawn(path, step, [{"row": 10 * step + i, "text": "\u00e9"} for i in range(2)])
    with path.open("a") as stream:
        stream.write('{"step": 4, "ta')
    return path


@pytest.mark.parametrize("done", [0, 1, 3])
def test_rows_after_the_last_checkpoint_are_removed(drawn_file, done):
    keep_drawn(drawn_file, done)
    found = read_drawn(drawn_file)
    assert [one["row"] for one in found] == [
        10 * s + i for s in range(1, done + 1) for i in range(2)
    ]
    assert all(one.keys() == {"row", "text"} for one in found)


def test_lost_rows_are_refused(drawn_file):
    with pytest.raises(UserError, match=r"drawn.jsonl has lost .* of the 5 steps .* resume=never"):
        keep_drawn(drawn_file, 5)
    drawn_file.unlink()
    with pytest.raises(UserError, match="has lost samples"):
        keep_drawn(drawn_file, 1)


def test_a_stage_without_a_file_has_no_rows(tmp_path):
    keep_drawn(tmp_path / "drawn.jsonl", 0)
    assert read_drawn(tmp_path / "drawn.jsonl") == []

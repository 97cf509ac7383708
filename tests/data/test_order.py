"""The number of steps of a stage, and where it resumes."""

import pytest

from rlhf_cli.data.order import num_steps, steps_after


def epochs_of_three(epoch: int) -> list[str]:
    return [f"{epoch}{letter}" for letter in "abc"]


@pytest.mark.parametrize(
    ("done", "total", "steps"),
    [
        (0, 6, ["0a", "0b", "0c", "1a", "1b", "1c"]),
        (0, 4, ["0a", "0b", "0c", "1a"]),
        (0, 2, ["0a", "0b"]),
        (3, 5, ["1a", "1b"]),
        (4, 5, ["1b"]),
        (5, 5, []),
    ],
)
def test_steps_resume_after_those_done_and_end_at_the_total(done, total, steps):
    found = list(steps_after(done, per_epoch=3, total=total, steps_of=epochs_of_three))
    assert found == list(enumerate(steps, start=done + 1))


@pytest.mark.parametrize(("max_steps", "steps"), [(None, 8), (99, 8), (8, 8), (5, 5), (1, 1)])
def test_max_steps_shortens_and_never_lengthens_training(max_steps, steps):
    assert num_steps(10, 3, epochs=2, max_steps=max_steps) == steps

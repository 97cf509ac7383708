"""Learning-rate factors, compared with published numbers and invariants of schedules."""

from itertools import pairwise

import pytest

from rlhf_cli.core.schedules import learning_rate_factor


def factors(kind, *, num_steps=100, warmup_steps=0, final=0.1, steps=None):
    return [
        learning_rate_factor(
            step, num_steps=num_steps, kind=kind, warmup_steps=warmup_steps, final=final
        )
        for step in (range(num_steps) if steps is None else steps)
    ]


def test_the_warmup_of_instructgpt_takes_ten_steps_from_a_tenth_of_the_peak():
    got = factors("constant", num_steps=500, warmup_steps=10)
    assert got[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert set(got[10:]) == {1.0}


def test_the_linear_schedule_equals_that_of_the_nplus_implementation():
    got = factors("linear", num_steps=8, final=0.0)
    assert got == pytest.approx([1 - (u - 1) / 8 for u in range(1, 9)])


def test_the_cosine_schedule_of_instructgpt_ends_at_a_tenth_of_the_peak():
    start, quarter, half, end, after = factors("cosine", steps=[0, 25, 50, 100, 250])
    assert (start, half, end, after) == (1.0, pytest.approx(0.55), pytest.approx(0.1), end)
    assert quarter == pytest.approx(0.1 + 0.9 * 0.853553, abs=1e-6)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_a_decay_is_monotone_and_point_symmetric(kind, final):
    got = factors(kind, num_steps=1000, final=final, steps=range(1001))
    assert all(a >= b - 1e-12 for a, b in pairwise(got))
    assert [a + b for a, b in zip(got, reversed(got), strict=True)] == pytest.approx(
        [1 + final] * 1001
    )
    assert sum(got) / 1001 == pytest.approx((1 + final) / 2)
    assert max(a - b for a, b in pairwise(got)) < 0.002  # no jumps


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_decay_after_a_warmup_equals_that_of_the_remaining_steps(kind):
    warm = factors(kind, num_steps=30, warmup_steps=10)
    assert warm[10:] == pytest.approx(factors(kind, num_steps=20))
    assert max(warm) == 1.0 and min(warm) > 0


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_runs_of_few_steps_do_not_divide_by_zero(kind):
    assert factors(kind, num_steps=1) == [1.0]
    assert factors(kind, num_steps=3, warmup_steps=3, final=0.0) == pytest.approx([1 / 3, 2 / 3, 1])


def test_an_unknown_schedule_is_refused_during_warmup_too():
    for step in (0, 50):
        with pytest.raises(ValueError, match="cosine"):
            learning_rate_factor(step, num_steps=100, kind="step", warmup_steps=10, final=0.1)

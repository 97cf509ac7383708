"""Baselines and scales of responses' rewards, against published numbers and by their properties."""

import pytest
import torch

from rlhf_cli.core.baselines import (
    response_advantages,
    uniform_groups,
    updated_baseline,
)

REWARDS = torch.tensor([1.0, 2.0, 3.0, 6.0])


def advantages(baseline="none", scale="none", group=4, rewards=REWARDS, running=None):
    return response_advantages(
        rewards, baseline=baseline, scale=scale, group=group, running=running
    )


@pytest.mark.parametrize(
    ("baseline", "scale", "expected"),
    [
        ("none", "none", [1.0, 2.0, 3.0, 6.0]),
        ("leave_one_out", "none", [-2.6667, -1.3333, 0.0, 4.0]),
        ("group", "none", [-2.0, -1.0, 0.0, 3.0]),  # 3/4 of leave-one-out
        ("group", "group", [-0.9258, -0.4629, 0.0, 1.3887]),  # unbiased deviation, as in TRL
        ("batch", "batch", [-0.9258, -0.4629, 0.0, 1.3887]),
        ("running", "none", [-2.6667, -1.3333, 0.0, 4.0]),  # the first iteration
    ],
)
def test_advantages_equal_the_published_numbers(baseline, scale, expected):
    assert advantages(baseline, scale).tolist() == pytest.approx(expected, abs=2e-4)


def test_a_group_is_compared_with_itself_alone():
    both = torch.cat([REWARDS, 100 + REWARDS])
    for baseline, scale in (("leave_one_out", "none"), ("group", "group")):
        alone = advantages(baseline, scale)
        together = advantages(baseline, scale, rewards=both)
        assert torch.allclose(together, alone.repeat(2), atol=1e-4)
    spread = torch.cat([REWARDS, 3 * REWARDS])
    scaled = advantages("group", "group", rewards=spread)
    assert torch.allclose(scaled[4:], scaled[:4], atol=1e-3)


def test_all_rewards_equal_give_no_advantage():
    for scale in ("none", "group", "batch"):
        assert not advantages("group", scale, rewards=torch.full((4,), 7.0)).any()


def test_the_running_baseline_moves_a_tenth_of_the_way():
    assert advantages("running", running=2.0).tolist() == [-1.0, 0.0, 1.0, 4.0]
    assert updated_baseline(None, 3.0) == 3.0
    assert updated_baseline(2.0, 3.0) == pytest.approx(2.1)


def test_uniform_groups_are_those_whose_scores_are_equal():
    scores = torch.tensor([1.0, 1.0 + 1e-7, 2.0, 2.0 + 1e-4])
    assert uniform_groups(scores, 2).tolist() == [True, False]


@pytest.mark.parametrize(("baseline", "scale"), [("median", "none"), ("none", "rank")])
def test_unknown_words_are_refused(baseline, scale):
    with pytest.raises(ValueError, match="is none of none, "):
        advantages(baseline, scale)


def test_a_single_response_has_no_others():
    with pytest.raises(ValueError, match="no other response"):
        advantages("leave_one_out", group=1)

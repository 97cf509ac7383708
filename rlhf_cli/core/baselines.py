"""Advantages of whole responses without a value model: their rewards minus a baseline, and scaled.

The responses to one prompt, a group, are consecutive rows: rewards (B,), B = prompts * group.
"""

from torch import Tensor

SCALE_EPS = 1e-4  # added to the standard deviation that rewards are divided by (TRL)
EQUAL = 1e-6  # scores of a group that differ by no more are called uniform
RATE = 0.1  # of the running mean: the Rescorla-Wagner rule


def leave_one_out(rewards: Tensor, group: int) -> Tensor:
    """Return for each response the mean reward of the others in its group (RLOO). (B,) -> (B,)"""
    if group < 2:
        raise ValueError(f"a group of {group} has no other response to take the mean of")
    grouped = rewards.view(-1, group)
    return ((grouped.sum(1, keepdim=True) - grouped) / (group - 1)).flatten()


def baselines(
    rewards: Tensor, *, kind: str, group: int, running: float | None = None
) -> Tensor | float:
    """Return what is subtracted from the rewards.

    kind: none | batch (the mean) | running (of earlier iterations; before the first the mean of all
    other responses) | leave_one_out | group (its mean, the response itself included). (B,) -> (B,) or ()
    """
    if kind == "none":
        return 0.0
    if kind == "batch":
        return rewards.mean()
    if kind == "running":
        return leave_one_out(rewards, len(rewards)) if running is None else running
    if kind == "leave_one_out":
        return leave_one_out(rewards, group)
    if kind == "group":
        return rewards.view(-1, group).mean(1).repeat_interleave(group)
    raise ValueError(f"baseline {kind!r} is none of none, batch, running, leave_one_out, group")


def scales(rewards: Tensor, *, kind: str, group: int) -> Tensor | float:
    """Return what advantages are divided by.

    kind: none | group | batch: the unbiased standard deviation there, plus SCALE_EPS. (B,) -> (B,) or ()
    """
    if kind == "none":
        return 1.0
    if kind == "batch":
        return rewards.std() + SCALE_EPS
    if kind == "group":
        return (rewards.view(-1, group).std(1) + SCALE_EPS).repeat_interleave(group)
    raise ValueError(f"scale {kind!r} is none of none, group, batch")


def updated_baseline(running: float | None, mean_reward: float) -> float:
    """Return the running baseline after an iteration: b + RATE * (mean reward - b)."""
    return mean_reward if running is None else running + RATE * (mean_reward - running)


def uniform_groups(scores: Tensor, group: int) -> Tensor:
    """Return which groups have equal scores: they teach nothing. (B,) -> (B / group,) bool"""
    grouped = scores.view(-1, group)
    return grouped.amax(1) - grouped.amin(1) <= EQUAL


def response_advantages(
    rewards: Tensor, *, baseline: str, scale: str, group: int, running: float | None = None
) -> Tensor:
    """Return (reward - baseline) / scale of each response. (B,) -> (B,)"""
    centred = rewards - baselines(rewards, kind=baseline, group=group, running=running)
    return centred / scales(rewards, kind=scale, group=group)

"""Rollouts of groups: a prompt and its responses together, groups of equal scores replaced."""

from dataclasses import replace

import torch

from rlhf_cli.core.microbatches import Share
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.policy_gradient.groups import collect_groups, with_groups_of
from rlhf_cli.stages.rollout.collect import all_gather_groups
from tests.support.policy_gradients import networks, prompts, settings
from tests.support.ppo_networks import PARAMS


def collected(cfg, score=None, first=0, seed=0):
    return collect_groups(
        networks(cfg, score),
        prompts(cfg),
        replace(PARAMS, copies=cfg.group),
        cfg,
        seed=seed,
        first=first,
        recompute=False,
    )


def test_the_responses_to_a_prompt_are_together_and_differ():
    found = collected(settings(group=4)).rollout
    groups = found.prompts.view(4, 4, -1)
    assert (groups == groups[:, :1]).all()
    assert len({tuple(row.tolist()) for row in groups[:, 0]}) == 4
    assert len({tuple(row.tolist()) for row in found.responses}) > 8


def test_every_batch_of_prompts_has_its_own_random_numbers():
    cfg = settings()
    one, same, other = (collected(cfg, first=first).rollout for first in (0, 0, 1))
    assert torch.equal(one.responses, same.responses)
    assert one.responses.shape != other.responses.shape or (one.responses != other.responses).any()


def equal_for(*calls):
    """Return a score that is 0 for all responses in these calls, and differs in the others."""
    count = iter(range(100))

    def score(inputs):
        rows = torch.arange(len(inputs.batch.responses), dtype=torch.float32)
        return torch.zeros_like(rows) if next(count) in calls else rows

    return score


def test_groups_of_equal_scores_are_replaced_by_those_of_further_prompts():
    cfg = settings(skip_uniform=True, max_extra=2)
    found = collected(cfg, equal_for(0, 1))
    assert found.drawn == 3
    assert found.metrics["objective/uniform_groups"] == 1.0
    assert found.rollout.scores.tolist() == list(range(16))
    assert (
        collected(replace(cfg, max_extra=1), equal_for(0, 1)).rollout.scores.tolist() == [0.0] * 16
    )
    kept = collected(replace(cfg, skip_uniform=False), equal_for(0))
    assert kept.drawn == 1 and not kept.rollout.scores.any()
    assert collected(cfg, equal_for()).drawn == 1


def test_only_uniform_groups_are_replaced_and_whole(rollout):
    """Two of four groups are uniform, and the other rollout has one group that is not."""
    scores = torch.arange(16.0)
    scores[4:8], scores[12:16] = 1.0, 2.0
    rollout = replace(rollout, scores=scores)
    other_scores = torch.zeros(16)
    other_scores[8:12] = torch.tensor([50.0, 51.0, 52.0, 53.0])
    other = replace(rollout, scores=other_scores, responses=rollout.responses + 1)
    found = with_groups_of(rollout, other, 4, pad_id=0)
    expected = [0.0, 1.0, 2.0, 3.0, 50.0, 51.0, 52.0, 53.0, 8.0, 9.0, 10.0, 11.0] + [2.0] * 4
    assert found.scores.tolist() == expected
    mask = rollout.response_mask[8:12]
    width = found.responses.shape[1]
    assert torch.equal(found.responses[4:8][mask[:, :width]], other.responses[8:12][mask])


def test_a_prompt_and_its_responses_are_of_one_process():
    """Two processes, three prompts each with two responses: rows come back in their places."""
    rows = torch.arange(8.0)[:, None].expand(8, 3)
    parts = []
    for rank in range(2):
        world = World(Share(rank, 2))
        own = rows.view(4, 2, 3)[rank::2].flatten(0, 1)
        parts.append(all_gather_groups(own, (4, 2, 5), world))
    whole = parts[0] + parts[1]
    assert torch.equal(whole[:, :3], rows) and not whole[:, 3:].any()

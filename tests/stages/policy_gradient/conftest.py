"""A rollout of groups away from where learning starts."""

from dataclasses import replace

import pytest
import torch

from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.stages.rollout.collect import collect_rollout
from tests.support.policy_gradients import networks, settings
from tests.support.ppo_networks import PARAMS, batch


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    """Return a rollout away from the reference and from ratio 1, with advantages, some unfinished."""
    cfg = settings()
    drawn = uniforms(16, PARAMS.max_new_tokens, 0)
    params = replace(PARAMS, copies=4)
    found, _ = collect_rollout(networks(cfg), batch(4), drawn, params, cfg)
    noise = torch.Generator().manual_seed(4)
    shape = found.logprobs.shape
    assert 0 < found.finished.sum() < 16
    return replace(
        found,
        ref_logprobs=found.logprobs + 0.3 * torch.randn(shape, generator=noise),
        logprobs=found.logprobs + 0.3 * torch.randn(shape, generator=noise),
        advantages=torch.randn(16, 1, generator=noise) * found.response_mask,
    )

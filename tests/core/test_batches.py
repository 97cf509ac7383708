"""Moving, selecting and trimming batches keeps their content."""

from dataclasses import fields

import pytest
import torch

from rlhf_cli.core.batches import PreferenceBatch, PromptBatch, Rollout, SFTBatch
from rlhf_cli.core.losses import policy_loss, value_loss
from rlhf_cli.core.returns import gae, shaped_rewards


def rollout(prompt_lengths=(2, 3), response_lengths=(1, 3), p=5, r=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    b = len(prompt_lengths)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    prompt_mask = torch.arange(p) >= p - torch.tensor(prompt_lengths)[:, None]
    response_mask = torch.arange(r) < torch.tensor(response_lengths)[:, None]
    return Rollout(
        prompts=torch.randint(3, 9, (b, p), generator=generator),
        prompt_mask=prompt_mask,
        responses=torch.randint(3, 9, (b, r), generator=generator),
        response_mask=response_mask,
        logprobs=noise(b, r),
        ref_logprobs=noise(b, r),
        values=noise(b, r),
        advantages=noise(b, r),
        returns=noise(b, r),
        scores=noise(b),
        finished=torch.tensor([True] * b),
    )


def sft_batch():
    x = torch.arange(6).view(2, 3)
    return SFTBatch(tokens=x, mask=x > 0, loss_mask=x > 2, positions=x, packed=True)


def preference_batch():
    return PreferenceBatch(
        tokens=torch.ones(2, 3),
        mask=torch.ones(2, 3) > 0,
        lengths=torch.ones(2),
        pairs=torch.tensor([[0, 1]]),
        targets=torch.ones(1),
        weights=torch.ones(1),
        prompt_of=torch.zeros(2).long(),
        num_prompts=1,
    )


def prompt_batch():
    return PromptBatch(tokens=torch.ones(2, 3), mask=torch.ones(2, 3) > 0, index=[4, 7])


@pytest.mark.parametrize("make", [sft_batch, preference_batch, prompt_batch, rollout])
def test_to_moves_every_tensor_and_keeps_other_fields(make):
    batch = make()
    moved = batch.to("meta")
    assert type(moved) is type(batch)
    for field in fields(batch):
        before, after = getattr(batch, field.name), getattr(moved, field.name)
        if isinstance(before, torch.Tensor):
            assert after.device.type == "meta" and after.shape == before.shape
        else:
            assert after == before


def test_select_takes_the_same_rows_of_everything():
    whole = rollout((1, 2, 3), (1, 2, 3))
    part = whole.select(torch.tensor([2, 0]))
    for field in fields(whole):
        before, after = getattr(whole, field.name), getattr(part, field.name)
        assert torch.equal(after[0], before[2]) and torch.equal(after[1], before[0])


def test_trim_cuts_left_of_prompts_and_right_of_responses():
    trimmed = rollout((2, 3), (1, 4)).trim()
    assert trimmed.prompts.shape == trimmed.prompt_mask.shape == (2, 3)
    for name in ("responses", "response_mask", "logprobs", "ref_logprobs", "values"):
        assert getattr(trimmed, name).shape == (2, 4)


def test_trim_keeps_every_real_token_and_is_idempotent():
    whole = rollout()
    trimmed = whole.trim()
    assert torch.equal(trimmed.prompts[trimmed.prompt_mask], whole.prompts[whole.prompt_mask])
    kept, all_real = trimmed.logprobs[trimmed.response_mask], whole.logprobs[whole.response_mask]
    assert torch.equal(kept, all_real)
    again = trimmed.trim()
    assert again.prompts.shape == trimmed.prompts.shape
    assert again.responses.shape == trimmed.responses.shape


def test_trim_keeps_masked_columns_that_are_not_at_the_edge():
    whole = rollout((5, 5), (6, 6))
    whole.prompt_mask[:, 2] = False
    whole.response_mask[:, 3] = False
    trimmed = whole.trim()
    assert trimmed.prompts.shape == (2, 5) and trimmed.responses.shape == (2, 6)


def losses_of(r):
    mask = r.response_mask
    rewards = shaped_rewards(r.scores, r.logprobs, r.ref_logprobs, mask, kl_coef=0.1)
    advantages, returns = gae(rewards, r.values, mask, gamma=1.0, gae_lambda=0.95)
    count = mask.sum()
    pg = policy_loss(r.logprobs + 0.3, r.logprobs, advantages, mask, clip_eps=0.2, num_tokens=count)
    vf = value_loss(r.values + 0.3, r.values, returns, mask, clip_eps=0.2, num_tokens=count)
    return [pg.loss, pg.clip_frac, pg.approx_kl, pg.ratio, vf.loss, vf.clip_frac]


def test_trim_does_not_change_losses_and_metrics():
    whole = rollout((2, 3, 1), (1, 3, 4), seed=3)
    torch.testing.assert_close(losses_of(whole.trim()), losses_of(whole))

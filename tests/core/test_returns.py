"""Rewards and advantages, compared with double loops and identities of GAE."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from rlhf_cli.core.returns import gae, missing_eos, response_rewards, shaped_rewards
from tests.support.response_masks import response_mask

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "core.json").read_text())["gae"]
LENGTHS = torch.tensor([1, 3, 5])
MASK = torch.arange(5) < LENGTHS[:, None]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def tokens_like(lengths, columns, end=2):
    """Return rows of these lengths, with an end token if they are shorter than `columns`."""
    rows = [[7] * (n - 1) + [end if n < columns else 8] for n in lengths]
    return torch.tensor([row + [0] * (columns - len(row)) for row in rows])


def test_rewards_equal_a_loop_over_every_row():
    scores, lp, ref = noise(3, seed=1), noise(3, 5, seed=2), noise(3, 5, seed=3)
    got = shaped_rewards(scores, lp, ref, MASK, kl_coef=0.3)
    for b, length in enumerate(LENGTHS.tolist()):
        want = [-0.3 * (lp[b, t] - ref[b, t]).item() for t in range(length)] + [0.0] * (5 - length)
        want[length - 1] += scores[b].item()
        assert got[b].tolist() == pytest.approx(want)


def test_the_rewards_of_a_response_sum_to_its_score_minus_the_kl_penalty():
    scores, lp, ref = noise(3, seed=1), noise(3, 5, seed=2), noise(3, 5, seed=3)
    total = shaped_rewards(scores, lp, ref, MASK, kl_coef=0.3).sum(1)
    sequence_kl = [lp[b, :n].sum() - ref[b, :n].sum() for b, n in enumerate(LENGTHS)]
    torch.testing.assert_close(total, scores - 0.3 * torch.stack(sequence_kl))


def test_the_expected_kl_penalty_is_negative():
    """The expectation of the KL part over samples of the policy is -kl_coef * KL, below zero."""
    policy, ref = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    one = torch.ones(3, 1, dtype=torch.bool)
    penalty = shaped_rewards(
        torch.zeros(3), policy.log()[:, None], ref.log()[:, None], one, kl_coef=0.5
    )
    kl = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), ref.tolist(), strict=True))
    assert (policy * penalty[:, 0]).sum().item() == pytest.approx(-0.5 * kl, rel=1e-5)


def test_the_score_is_added_at_eos_or_at_the_last_token():
    tokens = tokens_like([1, 3, 5], columns=5)
    mask = response_mask(tokens, torch.tensor([2]))
    zero = torch.zeros(3, 5)
    rewards = shaped_rewards(torch.tensor([1.0, 2.0, 3.0]), zero, zero, mask, kl_coef=0.1)
    assert rewards.nonzero().tolist() == [[0, 0], [1, 2], [2, 4]]
    assert rewards.sum(1).tolist() == [1, 2, 3]
    assert tokens[0, 0] == 2 and tokens[1, 2] == 2 and tokens[2, 4] != 2


def test_a_response_of_pads_only_is_refused():
    with pytest.raises(ValueError, match="no real token"):
        shaped_rewards(torch.ones(1), noise(1, 2), noise(1, 2), torch.zeros(1, 2) > 0, kl_coef=0.1)


@pytest.mark.parametrize("garbage", [1.0, -1e30, math.inf, math.nan])
def test_pads_do_not_change_rewards_advantages_and_returns(garbage):
    scores, lp, ref, values = (
        noise(3, seed=1),
        noise(3, 5, seed=2),
        noise(3, 5, seed=3),
        noise(3, 5),
    )

    def run(columns):
        extra = columns - 5
        lp_, ref_, values_ = (
            torch.where(pad(MASK, (0, extra)), pad(x, (0, extra)), garbage)
            for x in (lp, ref, values)
        )
        mask = pad(MASK, (0, extra))
        rewards = shaped_rewards(scores, lp_, ref_, mask, kl_coef=0.3)
        outputs = (rewards, *gae(rewards, values_, mask, gamma=0.9, gae_lambda=0.8))
        assert all(not x[~mask].any() for x in outputs)
        return [x[:, :5] for x in outputs]

    clean = shaped_rewards(scores, lp, ref, MASK, kl_coef=0.3)
    assert torch.equal(run(5)[0], clean)
    torch.testing.assert_close(run(9), run(5), atol=0, rtol=0)


def test_missing_eos_changes_the_scores_of_unfinished_responses_alone():
    scores, done = torch.tensor([0.5, 2.0, -3.0]), torch.tensor([True, False, False])
    for mode, value, want in [
        ("none", 9.0, [0.5, 2.0, -3.0]),
        ("replace", -1.0, [0.5, -1.0, -1.0]),
        ("subtract", 1.0, [0.5, 1.0, -4.0]),
    ]:
        assert missing_eos(scores, done, mode=mode, value=value).tolist() == want
        everyone = torch.ones(3, dtype=torch.bool)
        assert torch.equal(missing_eos(scores, everyone, mode=mode, value=value), scores)


def test_missing_eos_replace_ignores_a_shift_of_the_scores_and_subtract_keeps_it():
    """So the constant of `replace` has a meaning only on a fixed scale of scores."""
    scores, never = noise(4), torch.zeros(4, dtype=torch.bool)
    replaced = missing_eos(scores + 10, never, mode="replace", value=-1.0)
    assert torch.equal(replaced, missing_eos(scores, never, mode="replace", value=-1.0))
    subtracted = missing_eos(scores + 10, never, mode="subtract", value=1.0)
    torch.testing.assert_close(
        subtracted, 10 + missing_eos(scores, never, mode="subtract", value=1.0)
    )


def test_missing_eos_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match="replace"):
        missing_eos(torch.zeros(1), torch.ones(1) > 0, mode="penalise", value=0.0)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_gae_equals_the_published_numbers(gae_lambda):
    rewards, values = (torch.tensor([GOLDEN[k]], dtype=torch.double) for k in ("rewards", "values"))
    mask = torch.ones(1, 4, dtype=torch.bool)
    advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=gae_lambda)
    assert advantages[0].tolist() == pytest.approx(GOLDEN["advantages"][str(gae_lambda)])
    if gae_lambda == 1:
        assert returns[0].tolist() == pytest.approx([1] * 4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.1, 1), st.floats(0, 1))
def test_gae_equals_the_double_sum_of_its_definition(seed, gamma, gae_lambda):
    """A_t = sum_l (gamma lambda)^l (r_{t+l} + gamma V_{t+l+1} - V_{t+l}) up to the last token."""
    rewards, values = noise(3, 5, seed=seed), noise(3, 5, seed=seed + 1)
    advantages, returns = gae(rewards, values, MASK, gamma=gamma, gae_lambda=gae_lambda)
    for b, n in enumerate(LENGTHS.tolist()):
        r, v = rewards[b].tolist(), [*values[b, :n].tolist(), 0.0]
        for t in range(n):
            want = sum(
                (gamma * gae_lambda) ** (k - t) * (r[k] + gamma * v[k + 1] - v[k])
                for k in range(t, n)
            )
            assert advantages[b, t].item() == pytest.approx(want, abs=1e-9)
            assert returns[b, t].item() == pytest.approx(want + v[t], abs=1e-9)


def test_gae_with_lambda_one_is_return_minus_value_and_with_zero_one_step():
    rewards, values = noise(3, 5, seed=4), noise(3, 5, seed=5)
    long, long_returns = gae(rewards, values, MASK, gamma=0.9, gae_lambda=1.0)
    short, _ = gae(rewards, values, MASK, gamma=0.9, gae_lambda=0.0)
    for b, n in enumerate(LENGTHS.tolist()):
        for t in range(n):
            to_go = sum(0.9 ** (k - t) * rewards[b, k].item() for k in range(t, n))
            after = values[b, t + 1].item() if t + 1 < n else 0.0
            assert long_returns[b, t].item() == pytest.approx(to_go)
            assert long[b, t].item() == pytest.approx(to_go - values[b, t].item())
            step = rewards[b, t].item() + 0.9 * after - values[b, t].item()
            assert short[b, t].item() == pytest.approx(step)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_a_perfect_value_function_gives_zero_advantages(gae_lambda):
    rewards = noise(3, 5, seed=6) * MASK
    to_go = rewards.flip(1).cumsum(1).flip(1)
    advantages, returns = gae(rewards, to_go, MASK, gamma=1.0, gae_lambda=gae_lambda)
    torch.testing.assert_close(advantages, torch.zeros(3, 5, dtype=torch.double))
    torch.testing.assert_close(returns, to_go * MASK)


def test_a_score_one_past_eos_gives_the_same_advantages_without_discount():
    """N+ adds the score one column after EOS, with a value there; gamma = lambda = 1 agrees."""
    score, values = noise(1, seed=7), noise(1, 4, seed=8)
    on_end, past_end = torch.zeros(2, 1, 4, dtype=torch.double).unbind(0)
    on_end[0, 2], past_end[0, 3] = score, score
    mask = torch.tensor([[True, True, True, False]])
    ours, _ = gae(on_end, values, mask, gamma=1.0, gae_lambda=1.0)
    reference, _ = gae(past_end, values, torch.ones_like(mask), gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(ours[:, :3], reference[:, :3])


def test_advantages_are_linear_and_rows_are_independent():
    rewards, values = noise(3, 5, seed=9), noise(3, 5, seed=10)

    def run(r, v, m):
        return gae(r, v, m, gamma=0.9, gae_lambda=0.8)

    whole = run(rewards, values, MASK)
    torch.testing.assert_close(run(2 * rewards, 2 * values, MASK), tuple(2 * x for x in whole))
    order = torch.tensor([2, 0, 1])
    shuffled = run(rewards[order], values[order], MASK[order])
    torch.testing.assert_close(shuffled, tuple(x[order] for x in whole))


def test_the_reward_of_a_response_is_the_sum_of_its_shaped_rewards():
    args = noise(3, seed=1), noise(3, 5, seed=2), noise(3, 5, seed=3), MASK
    shaped = shaped_rewards(*args, kl_coef=0.3)
    assert torch.allclose(response_rewards(*args, kl_coef=0.3), shaped.sum(1))

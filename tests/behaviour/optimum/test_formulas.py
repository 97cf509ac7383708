"""The functions of core together reach the known optimum: reference * exp(score / beta) / Z.

Expectations are exact sums over all arms or all sequences (each sample's weight is its probability
under the sampler, put into its advantage), so nothing here is random.
"""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from rlhf_cli.core.kl import k1
from rlhf_cli.core.logprobs import token_logprobs
from rlhf_cli.core.losses import lm_loss, policy_loss
from rlhf_cli.core.preferences import PreferenceLoss
from rlhf_cli.core.returns import gae, missing_eos, shaped_rewards
from tests.support.response_masks import finished, response_mask

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "core.json").read_text())["optimum"]
CASES = GOLDEN["cases"]
FOUR_ARMS = CASES[2]


def double(x):
    return torch.tensor(x, dtype=torch.double)


def optimum(ref, scores, beta):
    weights = [p * math.exp(r / beta) for p, r in zip(ref, scores, strict=True)]
    return [w / sum(weights) for w in weights]


class Arms:
    """A bandit as a batch, where arm y is row y, a response of one token."""

    def __init__(self, case):
        self.scores, self.beta = double(case["scores"]), case["beta"]
        self.ref = double(case["ref"]).log()[:, None]
        self.tokens = torch.arange(len(self.scores))[:, None]
        self.mask = torch.ones_like(self.tokens, dtype=torch.bool)
        self.logits = self.ref[:, 0].clone().requires_grad_()

    def logprobs(self):
        rows = self.logits.expand(len(self.tokens), 1, -1)
        return token_logprobs(rows, self.tokens, temperature=1.0)

    def loss(self, old):
        rewards = shaped_rewards(self.scores, old, self.ref, self.mask, kl_coef=self.beta)
        baseline = (old.exp() * rewards).sum()  # a value that does not depend on the arm
        values = torch.full_like(rewards, baseline)
        advantages, _ = gae(rewards, values, self.mask, gamma=1.0, gae_lambda=0.95)
        return policy_loss(
            self.logprobs(), old, old.exp() * advantages, self.mask, clip_eps=0.2, num_tokens=1
        ).loss

    def descend(self, loss, rate):
        loss.backward()
        with torch.no_grad():
            self.logits -= rate * self.logits.grad
            self.logits.grad = None

    def policy(self):
        return self.logits.detach().softmax(0)


@pytest.mark.parametrize("case", CASES[:4], ids=lambda c: f"{len(c['ref'])} arms, {c['beta']}")
def test_policy_gradient_reaches_the_kl_regularised_optimum(case):
    arms = Arms(case)
    for _ in range(300):
        arms.descend(arms.loss(arms.logprobs().detach()), rate=4.0 / case["beta"])
    assert arms.policy().tolist() == pytest.approx(case["policy"], abs=1e-6)
    assert arms.policy().tolist() == pytest.approx(
        optimum(case["ref"], case["scores"], case["beta"])
    )


def test_four_clipped_epochs_per_rollout_reach_the_same_optimum():
    arms = Arms(FOUR_ARMS)
    for _ in range(250):
        old = arms.logprobs().detach()
        for _ in range(4):
            arms.descend(arms.loss(old), rate=2.0)
    assert arms.policy().tolist() == pytest.approx(FOUR_ARMS["policy"], abs=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{len(c['ref'])} arms, {c['beta']}")
def test_the_objective_at_the_optimum_is_beta_log_z(case):
    """J* = E[score] - beta KL equals the shaped rewards, which are constant at the optimum."""
    policy = double(optimum(case["ref"], case["scores"], case["beta"])).log()[:, None]
    ref = double(case["ref"]).log()[:, None]
    one = torch.ones_like(ref, dtype=torch.bool)
    rewards = shaped_rewards(double(case["scores"]), policy, ref, one, kl_coef=case["beta"])
    assert (policy.exp() * rewards).sum().item() == pytest.approx(case["objective"], abs=1e-6)
    assert rewards.std().item() == pytest.approx(0, abs=1e-9)  # no gradient is left
    if "kl" in case:
        assert (policy.exp() * k1(policy, ref)).sum().item() == pytest.approx(case["kl"], abs=1e-6)


@pytest.mark.parametrize("ptx_coef", [0.1, 1.0, 27.8])
def test_ptx_converges_between_the_optimum_and_the_pretraining_text(ptx_coef):
    """Uniform pretraining text, one token a document; the published fixed points (IG Eq. 2)."""
    arms = Arms(FOUR_ARMS)
    for _ in range(400):
        rl = arms.loss(arms.logprobs().detach())
        text = lm_loss(arms.logprobs(), arms.mask, num_tokens=4)
        arms.descend(rl + ptx_coef * text, rate=6.0 / (1 + ptx_coef))
    assert arms.policy().tolist() == pytest.approx(GOLDEN["ptx"][str(ptx_coef)], abs=1e-5)


def test_a_shift_of_scores_has_no_effect_and_a_scale_changes_beta():
    policies = []
    for scores, beta in [([1, 0.5, 0, -1], 0.5), ([8, 7.5, 7, 6], 0.5), ([2, 1, 0, -2], 1.0)]:
        arms = Arms({"ref": FOUR_ARMS["ref"], "scores": scores, "beta": beta})
        for _ in range(300):
            arms.descend(arms.loss(arms.logprobs().detach()), rate=4.0 / beta)
        policies.append(arms.policy())
    torch.testing.assert_close(policies[1], policies[0])
    torch.testing.assert_close(policies[2], policies[0])


def test_direct_preference_optimisation_reaches_the_same_optimum():
    """Exact Bradley-Terry labels on all pairs, with scores = beta * log-ratio, give the optimum."""
    ref, true, beta = (double(FOUR_ARMS[k]) for k in ("ref", "scores", "beta"))
    pairs = torch.tensor(list(itertools.permutations(range(4), 2)))
    weights = (true[pairs[:, 0]] - true[pairs[:, 1]]).sigmoid()
    logits = ref.log().clone().requires_grad_()
    fit = torch.optim.LBFGS(
        [logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10
    )
    loss = PreferenceLoss(
        ties="drop", tie_param=1.5, margin=0.0, label_smoothing=0.0, center_coef=0.0
    )

    def step():
        fit.zero_grad()
        implicit = beta * (logits.log_softmax(0) - ref.log())
        out = loss(implicit, pairs, torch.ones(12), weights, num_prompts=6)
        out.backward()
        return out

    fit.step(step)
    assert logits.detach().softmax(0).tolist() == pytest.approx(FOUR_ARMS["policy"], abs=1e-6)


END, COLUMNS = 0, 3


class Sequences:
    """All responses over {end, a, b} of at most three tokens, with a row of logits per prefix."""

    def __init__(self, beta=1.0):
        walks = itertools.product(range(3), repeat=COLUMNS)
        cut = {w[: w.index(END) + 1] if END in w else w for w in walks}
        rows = sorted(cut)
        self.tokens = torch.tensor([list(w) + [END] * (COLUMNS - len(w)) for w in rows])
        self.mask = response_mask(self.tokens, torch.tensor([END]))  # PAD == END on purpose
        self.done = finished(self.tokens, self.mask, torch.tensor([END]))
        prefixes = sorted({w[:t] for w in rows for t in range(len(w))})
        place = {prefix: i for i, prefix in enumerate(prefixes)}
        self.state = torch.tensor(
            [[place[w[: min(t, len(w) - 1)]] for t in range(COLUMNS)] for w in rows]
        )
        generator = torch.Generator().manual_seed(0)
        self.ref_table = 0.3 * torch.randn(len(prefixes), 3, generator=generator).double()
        self.table = self.ref_table.clone().requires_grad_()
        self.scores = torch.randn(len(rows), generator=generator).double()
        self.beta = beta

    def logprobs(self, table):
        return token_logprobs(table[self.state], self.tokens, temperature=1.0)

    def mass(self, table):
        return torch.where(self.mask, self.logprobs(table), 0.0).sum(1).exp()

    def target(self, scores):
        weights = self.mass(self.ref_table) * (scores / self.beta).exp()
        return weights / weights.sum(), self.beta * weights.sum().log()

    def learn(self, scores, steps=1500):
        ref = self.logprobs(self.ref_table)
        for _ in range(steps):
            old = self.logprobs(self.table).detach()
            rewards = shaped_rewards(scores, old, ref, self.mask, kl_coef=self.beta)
            advantages, _ = gae(rewards, 0 * rewards, self.mask, gamma=1.0, gae_lambda=1.0)
            weighted = self.mass(self.table).detach()[:, None] * advantages
            new = self.logprobs(self.table)
            policy_loss(new, old, weighted, self.mask, clip_eps=0.2, num_tokens=1).loss.backward()
            with torch.no_grad():
                self.table -= 3.0 * self.table.grad
                self.table.grad = None
        return self.mass(self.table).detach()


def test_the_probabilities_of_all_sequences_sum_to_one():
    world = Sequences()
    assert len(world.tokens) == 1 + 2 + 4 + 8
    assert world.done.tolist().count(False) == 8
    assert world.mass(world.ref_table).sum().item() == pytest.approx(1)


def test_sequence_kl_is_the_sum_of_the_kl_at_each_step():
    """Chain rule: E[sum_t k1_t] = sum over prefixes of P(prefix) KL(next | prefix)."""
    world = Sequences()
    noise = torch.randn(world.table.shape, generator=torch.Generator().manual_seed(1))
    table = (world.ref_table + noise).detach()
    lp, ref = world.logprobs(table), world.logprobs(world.ref_table)
    per_sequence = torch.where(world.mask, k1(lp, ref), 0.0).sum(1)
    sampled = (world.mass(table) * per_sequence).sum().item()
    p, q = table.softmax(1), world.ref_table.softmax(1)
    step_kl = (p * (p / q).log()).sum(1)
    before = torch.where(world.mask, lp, 0.0).cumsum(1) - lp
    reach = {}
    for row, column in world.mask.nonzero().tolist():
        reach[world.state[row, column].item()] = before[row, column].exp().item()
    want = sum(reach[s] * step_kl[s].item() for s in reach)
    assert sampled == pytest.approx(want, abs=1e-12)


def test_policy_gradient_over_sequences_reaches_the_optimum():
    """This covers masks, the position of the reward, shaping, GAE and the loss together."""
    world = Sequences()
    target, objective = world.target(world.scores)
    got = world.learn(world.scores)
    torch.testing.assert_close(got, target, atol=1e-6, rtol=1e-4)
    objective_found = (
        got * (world.scores - world.beta * (got / world.mass(world.ref_table)).log())
    ).sum()
    assert objective_found.item() == pytest.approx(objective.item(), abs=1e-9)


def test_missing_eos_moves_the_optimum_away_from_unfinished_responses():
    """A shift of the scores then has an effect: -1 is far below scores near 3."""
    shares = []
    for shift in (0.0, 3.0):
        world = Sequences()
        scores = missing_eos(world.scores + shift, world.done, mode="replace", value=-1.0)
        target, _ = world.target(scores)
        got = world.learn(scores)
        torch.testing.assert_close(got, target, atol=1e-4, rtol=1e-3)
        shares.append(got[~world.done].sum().item())
    assert shares[1] < shares[0] / 5

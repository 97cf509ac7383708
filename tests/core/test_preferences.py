"""The loss of the reward model, compared with loops over pairs, published tie models and optima."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.core.preferences import PreferenceLoss, pair_probabilities

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "core.json").read_text())["ties"]
ONE_PAIR = torch.tensor([[0, 1]])
PLAIN = {
    "ties": "drop",
    "tie_param": 1.5,
    "margin": 0.0,
    "label_smoothing": 0.0,
    "center_coef": 0.0,
}
MODELLED = [("rao_kupper", 1.5), ("rao_kupper", 3.0), ("davidson", 0.5), ("davidson", 2.0)]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def loss(scores, pairs=ONE_PAIR, targets=None, weights=None, *, num_prompts=1, **options):
    """Return PreferenceLoss in float64, with plain options unless others are given."""
    scores = torch.as_tensor(scores, dtype=torch.double)
    ones = torch.ones(len(pairs), dtype=torch.double)
    return PreferenceLoss(**{**PLAIN, **options})(
        scores,
        pairs,
        ones if targets is None else torch.as_tensor(targets, dtype=torch.double),
        ones if weights is None else weights,
        num_prompts=num_prompts,
    )


def ranking(sizes):
    """Return (pairs, weights) of prompts with K completions each, ranked best first."""
    pairs, weights, start = [], [], 0
    for k in sizes:
        mine = list(itertools.combinations(range(start, start + k), 2))
        pairs += mine
        weights += [1 / len(mine)] * len(mine)
        start += k
    return torch.tensor(pairs), torch.tensor(weights, dtype=torch.double)


def noise(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def minimum(function, low=-20.0, high=20.0):
    """Return the minimum of a convex function, by golden-section search."""
    shrink = (math.sqrt(5) - 1) / 2
    for _ in range(100):
        a, b = high - shrink * (high - low), low + shrink * (high - low)
        low, high = (low, b) if function(a) < function(b) else (a, high)
    return (low + high) / 2


@pytest.mark.parametrize("k", range(2, 10))
def test_the_loss_of_equal_scores_is_ln_2_for_every_k_and_gradients_cancel(k):
    pairs, weights = ranking([k])
    assert len(pairs) == {2: 1, 3: 3, 4: 6, 5: 10, 6: 15, 7: 21, 8: 28, 9: 36}[k]
    assert loss(torch.zeros(k), pairs, weights=weights).item() == pytest.approx(0.693147, abs=1e-6)
    scores = noise(k).requires_grad_()
    loss(scores, pairs, weights=weights).backward()
    assert scores.grad.sum().item() == pytest.approx(0, abs=1e-12)


def test_every_prompt_has_the_same_weight_whatever_its_k():
    """InstructGPT's weights: a prompt is the mean of its pairs, a batch the mean of its prompts."""
    scores = noise(13)
    pairs, weights = ranking([4, 9])
    by_prompt = [
        [math.log(1 + math.exp(scores[j] - scores[i])) for i, j in pairs.tolist() if (i < 4) == few]
        for few in (True, False)
    ]
    assert [len(x) for x in by_prompt] == [6, 36]
    want = sum(sum(x) / len(x) for x in by_prompt) / 2
    assert loss(scores, pairs, weights=weights, num_prompts=2).item() == pytest.approx(want)
    flat = sum(map(sum, by_prompt)) / 42
    assert abs(want - flat) > 0.01


def test_the_loss_of_two_scores_is_the_cross_entropy_of_a_softmax():
    scores = noise(2)
    want = torch.nn.functional.cross_entropy(scores[None], torch.tensor([0]))
    torch.testing.assert_close(loss(scores), want)


OPTIONS = [
    {},
    {"ties": "soft"},
    {"margin": 0.7},
    {"label_smoothing": 0.1},
    {"ties": "soft", "margin": 0.7, "label_smoothing": 0.1},
    *({"ties": ties, "tie_param": param} for ties, param in MODELLED),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_constant_added_to_the_scores_does_not_change_the_loss(options):
    pairs, weights = ranking([4, 3])
    targets = [1.0, 0.5, 1.0] * 3

    def run(s):
        return loss(s, pairs, targets, weights, num_prompts=2, **options)

    torch.testing.assert_close(run(noise(7) + 1000.0), run(noise(7)), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("options", [*OPTIONS, {"center_coef": 0.01}])
def test_microbatches_of_prompts_add_up_in_any_order(options):
    scores, targets = noise(7), torch.tensor([1.0, 0.5, 1.0] * 3)
    pairs, weights = ranking([4, 3])

    def run(rows, s, p):
        return loss(s, p[rows], targets[rows], weights[rows], num_prompts=2, **options)

    whole = run(slice(None), scores, pairs)
    torch.testing.assert_close(
        run(slice(0, 6), scores, pairs) + run(slice(6, 9), scores, pairs), whole
    )
    torch.testing.assert_close(run(torch.randperm(9), scores, pairs), whole)
    order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    torch.testing.assert_close(run(slice(None), scores[order], order.argsort()[pairs]), whole)


@pytest.mark.parametrize("options", [*OPTIONS, {"center_coef": 0.01}])
def test_gradients_equal_finite_differences(options):
    pairs, weights = ranking([4, 3])
    scores = noise(7).requires_grad_()
    targets = [1.0, 0.5, 1.0] * 3

    def run(s):
        return loss(s, pairs, targets, weights, num_prompts=2, **options)

    assert torch.autograd.gradcheck(run, scores)


@pytest.mark.parametrize("options", [*OPTIONS, {"center_coef": 0.01}])
@pytest.mark.parametrize("gap", [-1e4, 1e4])
def test_extreme_scores_give_finite_losses_and_gradients(options, gap):
    scores = torch.tensor([gap, 0.0], requires_grad=True)
    out = PreferenceLoss(**{**PLAIN, **options})(
        scores,
        ONE_PAIR.expand(2, 2),
        torch.tensor([1.0, 0.5]),
        torch.ones(2),
        num_prompts=1,
    )
    out.backward()
    assert out.isfinite() and scores.grad.isfinite().all()


def test_dropped_ties_add_no_loss_and_keep_the_divisor():
    pairs, weights = ranking([4])
    targets = torch.tensor([1.0, 0.5, 1.0, 1.0, 0.5, 1.0])
    keep = targets == 1
    with_ties = loss(noise(4), pairs, targets, weights)
    without = loss(noise(4), pairs[keep], targets[keep], weights[keep])
    torch.testing.assert_close(with_ties, without)
    scores = noise(2).requires_grad_()
    loss(scores, targets=[0.5], center_coef=0.3).backward()
    assert not scores.grad.any()


def test_the_loss_of_a_soft_tie_is_least_ln_2_at_equal_scores():
    def tie(d):
        return loss([d, 0.0], targets=[0.5], ties="soft").item()

    assert minimum(tie) == pytest.approx(0, abs=1e-6)
    assert tie(0.0) == pytest.approx(math.log(2))
    assert tie(1.3) == pytest.approx(tie(-1.3))
    assert tie(1.3) == pytest.approx(-0.5 * math.log(sigmoid(1.3)) - 0.5 * math.log(sigmoid(-1.3)))


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
def test_the_loss_of_a_soft_label_is_least_at_its_logit(target):
    def soft(d):
        return loss([d, 0.0], targets=[target], ties="soft").item()

    assert minimum(soft) == pytest.approx(math.log(target / (1 - target)), abs=1e-5)


def test_label_smoothing_has_the_published_optimum():
    def smooth(d):
        return loss([d, 0.0], label_smoothing=0.1).item()

    best = minimum(smooth)
    assert best == pytest.approx(2.1972, abs=1e-4)
    assert smooth(best) == pytest.approx(0.32508, abs=1e-5)


def test_label_smoothing_is_the_expectation_over_flipped_labels():
    straight, flipped = loss([1.2, 0.3]), loss([0.3, 1.2])
    torch.testing.assert_close(
        loss([1.2, 0.3], label_smoothing=0.1), 0.9 * straight + 0.1 * flipped
    )


def test_a_margin_applies_to_winners_and_not_to_ties():
    assert loss([1.7, 0.0], margin=0.7).item() == pytest.approx(math.log(1 + math.exp(-1.0)))
    torch.testing.assert_close(loss([1.7, 0.0], margin=0.7), loss([1.0, 0.0]))
    tie = {"targets": [0.5], "ties": "soft"}
    torch.testing.assert_close(loss([1.7, 0.0], margin=0.7, **tie), loss([1.7, 0.0], **tie))


def test_centering_adds_a_square_and_determines_the_level():
    """With K = 2 the weights are 1, and the term is coef * mean((r_w + r_l)^2)."""
    scores = torch.tensor([2.0, 1.0, 0.5, -3.0], dtype=torch.double)
    pairs = torch.tensor([[0, 1], [2, 3]])

    def run(c):
        return loss(scores, pairs, num_prompts=2, center_coef=c).item()

    assert run(0.01) - run(0.0) == pytest.approx(0.01 * (3.0**2 + 2.5**2) / 2)
    level = minimum(lambda c: loss([c + 1.0, c - 1.0], center_coef=0.01).item())
    assert level == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("ties", ["rao_kupper", "davidson"])
def test_tie_models_equal_their_published_probabilities(ties):
    case = GOLDEN[ties]
    scores = torch.tensor(GOLDEN["scores"])
    got = pair_probabilities(scores, ONE_PAIR, ties=ties, tie_param=case["tie_param"])
    assert got[0].tolist() == pytest.approx(case["probabilities"], abs=5e-6)
    options = {"ties": ties, "tie_param": case["tie_param"]}
    win, tie, lose = case["probabilities"]
    for pair, target, p in ([0, 1], 1.0, win), ([0, 1], 0.5, tie), ([1, 0], 1.0, lose):
        cost = loss(GOLDEN["scores"], torch.tensor([pair]), [target], **options)
        assert cost.item() == pytest.approx(-math.log(p), abs=5e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-8, 8), st.floats(-8, 8), st.sampled_from([*MODELLED, ("soft", 1.5)]))
def test_pair_probabilities_sum_to_one_and_follow_their_definition(a, b, model):
    ties, param = model
    scores = torch.tensor([a, b], dtype=torch.double)
    win, tie, lose = pair_probabilities(scores, ONE_PAIR, ties=ties, tie_param=param)[0].tolist()
    swapped = pair_probabilities(scores, ONE_PAIR.flip(1), ties=ties, tie_param=param)[0].tolist()
    assert swapped == pytest.approx([lose, tie, win])
    assert win + tie + lose == pytest.approx(1)
    p, q = math.exp(a), math.exp(b)
    if ties == "rao_kupper":
        assert win == pytest.approx(p / (p + param * q))
    elif ties == "davidson":
        assert win == pytest.approx(p / (p + q + param * math.sqrt(p * q)))
    else:
        assert (win, tie) == (pytest.approx(p / (p + q)), 0)


@pytest.mark.parametrize(("ties", "param"), [("rao_kupper", 1.0), ("davidson", 0.0)])
def test_tie_models_without_ties_are_bradley_terry(ties, param):
    pairs, weights = ranking([4])
    scores = noise(4).requires_grad_()
    modelled = loss(scores, pairs, weights=weights, ties=ties, tie_param=param)
    torch.testing.assert_close(modelled, loss(scores, pairs, weights=weights))
    modelled.backward()
    assert scores.grad.isfinite().all()
    impossible = loss([0.0, 0.0], targets=[0.5], ties=ties, tie_param=param)
    assert impossible.item() == math.inf


@pytest.mark.parametrize(("ties", "param"), MODELLED)
def test_expected_loss_is_least_at_the_true_gap(ties, param):
    """The loss is a proper score: with outcomes at a gap of 0.8, it is least at 0.8."""
    options = {"ties": ties, "tie_param": param}
    truth = pair_probabilities(torch.tensor([0.8, 0.0]), ONE_PAIR, **options)[0].tolist()

    def expected(d):
        scores, pairs = [d, 0.0], torch.tensor([[0, 1], [0, 1], [1, 0]])
        weights = torch.tensor(truth, dtype=torch.double)
        return loss(scores, pairs, [1.0, 0.5, 1.0], weights, **options).item()

    assert minimum(expected) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0, 8.0])
def test_bradley_terry_on_data_with_ties_is_biased_within_known_bounds(gap):
    """Rao-Kupper data, theta = 2. Ties as halves shrink a gap, by log((1 + 4) / 4) = .2231 at most
    (Liu 2410.05328); dropped ties stretch it, by log 2 at most."""
    scores = torch.tensor([gap, 0.0], dtype=torch.double)
    truth = pair_probabilities(scores, ONE_PAIR, ties="rao_kupper", tie_param=2.0)[0]
    pairs, weights = torch.tensor([[0, 1], [0, 1], [1, 0]]), truth.double()

    def fitted(ties):
        return minimum(lambda d: loss([d, 0.0], pairs, [1.0, 0.5, 1.0], weights, ties=ties).item())

    assert -0.22315 < fitted("soft") - gap <= 1e-5
    assert -1e-5 <= fitted("drop") - gap < math.log(2)
    if gap == 8:
        assert fitted("soft") - gap == pytest.approx(-0.2231, abs=1e-3)
        assert fitted("drop") - gap == pytest.approx(math.log(2), abs=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ties": "rao_kupper", "tie_param": 0.5}, "theta"),
        ({"ties": "davidson", "tie_param": -0.1}, "nu"),
        ({"ties": "davidson", "margin": 0.5}, "margin"),
        ({"ties": "rao_kupper", "label_smoothing": 0.1}, "label_smoothing"),
        ({"ties": "ignore"}, "soft"),
    ],
)
def test_contradictory_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        loss([0.0, 1.0], **options)


def test_maximum_likelihood_recovers_the_scores_within_their_standard_errors():
    """With 4,000 pairs of 8 items, every error is under three standard errors (Fisher)."""
    generator = torch.Generator().manual_seed(0)
    truth = noise(8, seed=1) - noise(8, seed=1).mean()
    first = torch.randint(0, 8, (4000,), generator=generator)
    second = (first + torch.randint(1, 8, (4000,), generator=generator)) % 8
    p = (truth[first] - truth[second]).sigmoid()
    won = torch.rand(4000, generator=generator, dtype=torch.double) < p
    pairs = torch.where(
        won[:, None], torch.stack([first, second], 1), torch.stack([second, first], 1)
    )
    scores = torch.zeros(8, dtype=torch.double, requires_grad=True)
    fit = torch.optim.LBFGS([scores], max_iter=100, line_search_fn="strong_wolfe")

    def step():
        fit.zero_grad()
        out = loss(scores, pairs, num_prompts=4000)
        out.backward()
        return out

    fit.step(step)
    edges = torch.zeros(4000, 8, dtype=torch.double)
    edges[torch.arange(4000), first], edges[torch.arange(4000), second] = 1.0, -1.0
    fisher = edges.T @ (edges * (p * (1 - p))[:, None])
    errors = torch.linalg.pinv(fisher, rtol=1e-9).diagonal().sqrt()  # only differences count
    assert errors.min() > 0.04 and errors.max() < 0.1
    z = (scores.detach() - scores.detach().mean() - truth) / errors
    assert z.abs().max() < 3

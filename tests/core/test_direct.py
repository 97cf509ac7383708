"""Direct losses at their known optima, and against their definitions."""

import math

import pytest
import torch
from torch import Tensor

from rlhf_cli.core.direct import DirectLoss
from rlhf_cli.core.preferences import PreferenceLoss

REF = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.double)
REWARDS = torch.tensor([1.0, 0.5, 0.0, -1.0], dtype=torch.double)
OPTIMUM = [0.451462, 0.332167, 0.183296, 0.033075]  # ref * exp(r / beta) / Z, beta 1/2
ORDERED = torch.tensor([(i, j) for i in range(4) for j in range(4)])
WINS = torch.sigmoid(REWARDS[ORDERED[:, 0]] - REWARDS[ORDERED[:, 1]])  # Bradley-Terry labels


def direct(**changes) -> DirectLoss:
    values = {"loss": "sigmoid", "beta": 0.5, "label_smoothing": 0.0, "ties": "soft"}
    return DirectLoss(**(values | {"tie_param": 0.0, "margin": 0.0} | changes))


def minimised(loss: DirectLoss, weights: Tensor = WINS) -> Tensor:
    """Return the log-ratios of the policy that minimises the loss over all ordered pairs."""
    theta = REF.log().clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [theta], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure():
        solver.zero_grad()
        log_ratios = theta.log_softmax(0) - REF.log()
        found = loss(
            log_ratios,
            torch.ones(4),
            ORDERED,
            torch.ones(16, dtype=torch.double),
            weights,
            num_prompts=1,
        )
        found.backward()
        return found

    solver.step(closure)
    return (theta.log_softmax(0) - REF.log()).detach()


def test_dpo_on_all_pairs_reaches_the_kl_regularised_optimum():
    assert (minimised(direct()) + REF.log()).exp().tolist() == pytest.approx(OPTIMUM, abs=1e-5)


def test_robust_dpo_undoes_flipped_labels():
    """With a tenth of the labels flipped it reaches the same optimum; DPO itself does not."""
    flipped = 0.9 * WINS + 0.1 * (1 - WINS)
    found = minimised(direct(loss="robust", label_smoothing=0.1), flipped)
    assert (found + REF.log()).exp().tolist() == pytest.approx(OPTIMUM, abs=1e-4)
    plain = (minimised(direct(), flipped) + REF.log()).exp()
    assert abs(float(plain[0]) - OPTIMUM[0]) > 0.05


def test_ipo_reaches_its_own_optimum():
    """score_i = mean_j (2 P_ij - 1) / (2 beta) for all pairs (2310.12036, eq. 9)."""
    found = minimised(direct(loss="ipo"))
    assert float(found[0] - found[1]) == pytest.approx(0.208370, abs=1e-5)


def values(loss: DirectLoss, gap: float, target: float = 1.0, lengths=(1.0, 1.0)) -> tuple:
    """Return loss and slope in the gap of one pair."""
    x = torch.tensor([gap, 0.0], dtype=torch.double, requires_grad=True)
    found = loss(
        x,
        torch.tensor(lengths),
        torch.tensor([[0, 1]]),
        torch.tensor([target]),
        torch.ones(1),
        num_prompts=1,
    )
    found.backward()
    return float(found.detach()), float(x.grad[0])


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_losses_where_policy_and_reference_are_equal(beta):
    assert values(direct(beta=beta), 0.0) == pytest.approx((math.log(2), -beta / 2))
    assert values(direct(beta=beta, loss="robust"), 0.0) == pytest.approx((math.log(2), -beta / 2))
    assert values(direct(beta=beta, loss="ipo"), 0.0) == pytest.approx(
        (1 / (4 * beta**2), -1 / beta)
    )


def test_label_smoothing_stops_at_a_finite_gap():
    """cDPO: the slope is 0 at log((1 - e) / e) / beta, 21.972 for both a tenth."""
    smoothed = direct(beta=0.1, label_smoothing=0.1)
    assert values(smoothed, 21.972)[1] == pytest.approx(0, abs=1e-6)
    assert values(smoothed, 30.0)[1] > 1e-3 > -1e-3 > values(smoothed, 10.0)[1]


def test_a_tie_of_ipo_aims_at_equal_log_ratios_and_may_be_dropped():
    assert values(direct(loss="ipo"), 0.7, target=0.5) == pytest.approx((0.49, 1.4))
    assert values(direct(loss="ipo", ties="drop"), 0.7, target=0.5) == (0.0, 0.0)


def test_the_mean_form_of_ipo_divides_by_the_tokens_of_each_response():
    mean, sums = direct(loss="ipo_mean"), direct(loss="ipo")
    assert values(mean, 6.0, lengths=(3.0, 2.0))[0] == pytest.approx(values(sums, 2.0)[0])


def test_the_sigmoid_loss_is_that_of_a_reward_model_with_scaled_scores():
    log_ratios = torch.tensor([0.3, -1.0, 2.0])
    args = torch.tensor([[0, 1], [2, 0]]), torch.tensor([1.0, 0.5]), torch.tensor([0.5, 0.25])
    settings = {"ties": "davidson", "tie_param": 0.4, "margin": 0.0, "label_smoothing": 0.0}
    found = direct(beta=0.3, **settings)(log_ratios, torch.ones(3), *args, num_prompts=2)
    expected = PreferenceLoss(**settings, center_coef=0.0)(0.3 * log_ratios, *args, num_prompts=2)
    assert torch.equal(found, expected)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="none of sigmoid, ipo, ipo_mean, robust"):
        values(direct(loss="hinge"), 0.0)

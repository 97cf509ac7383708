"""Likelihood of comparisons under the scores, and the reward model's loss.

A pair is (winner, loser), rows of `scores`; its target is 1.0, or 0.5 when it is a tie. Every form
depends on score differences only, so a constant added to all scores changes nothing, except the
centering term.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

BINARY = ("drop", "soft")


def _log_or_never(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _rao_kupper(gap: Tensor, theta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return win, tie, lose for p = e^score; theta 1 is Bradley-Terry.

    win = p_w / (p_w + theta p_l), tie = (theta^2 - 1) win lose.
    """
    if theta < 1:
        raise ValueError(f"tie_param={theta}: theta of Rao-Kupper is at least 1")
    win, lose = logsigmoid(gap - math.log(theta)), logsigmoid(-gap - math.log(theta))
    return win, _log_or_never(theta**2 - 1) + win + lose, lose


def _davidson(gap: Tensor, nu: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return win, tie, lose in the ratio p_w : nu sqrt(p_w p_l) : p_l; nu 0 is BT."""
    if nu < 0:
        raise ValueError(f"tie_param={nu}: nu of Davidson is at least 0")
    tie = torch.full_like(gap, _log_or_never(nu))
    return tuple(torch.stack((gap / 2, tie, -gap / 2)).log_softmax(0))


def _outcomes(gap: Tensor, ties: str, tie_param: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-probabilities of win, tie and lose at each score difference (M,)."""
    if ties in BINARY:
        return logsigmoid(gap), torch.full_like(gap, -math.inf), logsigmoid(-gap)
    if ties == "rao_kupper":
        return _rao_kupper(gap, tie_param)
    if ties == "davidson":
        return _davidson(gap, tie_param)
    raise ValueError(f"ties={ties!r} is none of drop, soft, rao_kupper, davidson")


def pair_probabilities(scores: Tensor, pairs: Tensor, *, ties: str, tie_param: float) -> Tensor:
    """Return the probabilities that the first of each pair wins, ties, loses; they sum to 1.

    scores (N,), pairs (M, 2) -> (M, 3); under drop and soft (Bradley-Terry) a tie has 0
    """
    gap = scores[pairs[:, 0]] - scores[pairs[:, 1]]
    return torch.stack(_outcomes(gap, ties, tie_param), dim=1).exp()


def _binary_losses(
    gap: Tensor, targets: Tensor, *, margin: float, label_smoothing: float
) -> Tensor:
    """Return the cross-entropy of sigmoid(gap - margin) to the smoothed target; a tie has no margin."""
    gap = gap - margin * (2 * targets - 1)
    win = targets * (1 - label_smoothing) + (1 - targets) * label_smoothing
    return -(win * logsigmoid(gap) + (1 - win) * logsigmoid(-gap))


@dataclass(slots=True, frozen=True, kw_only=True)
class PreferenceLoss:
    """The reward model's loss: how a pair, a tie and the level of the scores are penalised.

    ties: drop (a tied pair costs nothing, and its prompt weighs less) | soft (cross-entropy to 1/2)
    | rao_kupper | davidson (ties modelled; margin and label_smoothing must be 0).
    center_coef adds coef * (winner + loser)^2 per pair (2312.09244).
    """

    ties: str
    tie_param: float
    margin: float
    label_smoothing: float
    center_coef: float

    def __post_init__(self):
        if self.ties not in BINARY and (self.margin or self.label_smoothing):
            raise ValueError(
                f"ties={self.ties} models ties itself: margin and label_smoothing must be 0"
            )

    def __call__(
        self,
        scores: Tensor,
        pairs: Tensor,
        targets: Tensor,
        weights: Tensor,
        *,
        num_prompts: float | Tensor,
    ) -> Tensor:
        """Return the sum of weights * pair loss / num_prompts.

        With weights of 1 / labelled pairs every prompt counts the same, for any K (IG Eq. 1).
        num_prompts: of the complete optimizer step, on all ranks.
        scores (N,) . pairs (M, 2) . targets, weights (M,) -> scalar
        """
        winner, loser = scores[pairs[:, 0]], scores[pairs[:, 1]]
        gap, tied = winner - loser, targets == 0.5
        if self.ties in BINARY:
            losses = _binary_losses(
                gap, targets, margin=self.margin, label_smoothing=self.label_smoothing
            )
        else:
            win, tie, _ = _outcomes(gap, self.ties, self.tie_param)
            losses = -torch.where(tied, tie, win)
        losses = losses + self.center_coef * (winner + loser).square()
        return kept_sum(losses, targets, weights, ties=self.ties) / num_prompts


def kept_sum(losses: Tensor, targets: Tensor, weights: Tensor, *, ties: str) -> Tensor:
    """Return the weighted sum of pair losses, without those of ties where these are dropped."""
    tied = targets == 0.5
    kept = ~tied if ties == "drop" else torch.ones_like(tied)
    return torch.where(kept, weights * losses, 0.0).sum()

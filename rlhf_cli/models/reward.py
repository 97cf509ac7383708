"""The scalar head: how it starts, and how its mean is set without a bias term."""

import math

import torch
from torch import Tensor, nn

from rlhf_cli.config.errors import UserError


def init_head(model: nn.Module, *, seed: int) -> None:
    """Draw the head from N(0, 1/(d+1)), so that a new reward model's scores have unit scale (ST)."""
    weight = model.score.weight
    generator = torch.Generator().manual_seed(seed)
    fresh = torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1] + 1)
    with torch.no_grad():
        weight.copy_(fresh)


def check_head(model: nn.Module) -> None:
    """A scalar model must be a body with one linear head called `score`."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise UserError(
            f"{type(model).__name__} has no linear head `score` with one output: "
            "use a decoder architecture whose AutoModelForSequenceClassification has one"
        )


def shift_scores(
    model: nn.Module, anchors: Tensor, differences: Tensor, *, ridge: float = 1e-4
) -> float:
    """Move the head so that `anchors` score mean 0 while comparisons keep their margins.

    Transformers' scalar heads have no bias, so a constant cannot be subtracted from what plain
    AutoModelForSequenceClassification computes. The head w becomes w + e with the smallest change
    of margins, min_e mean((e . differences)^2) + ridge |e|^2, subject to e . mean(anchors) being
    minus the mean score; the solution is a multiple of A^-1 mean(anchors). Hidden states of last
    tokens share a large common part, which is what e uses.

    anchors (n, D): last hidden states of the demonstrations. differences (m, D): of the pairs, winner
    minus loser. Returns the mean score that was removed.
    """
    weight = model.score.weight
    anchors, differences = anchors.double(), differences.double()
    centre = anchors.mean(0)
    shift = weight.detach().cpu().double()[0] @ centre
    second = differences.T @ differences / max(len(differences), 1)
    second += (
        ridge * (second.trace() / len(second) + 1e-12) * torch.eye(len(second), dtype=torch.float64)
    )
    direction = torch.linalg.solve(second, centre)
    change = -shift * direction / (centre @ direction)
    with torch.no_grad():
        weight += change.to(weight)[None]
    return float(shift)

"""One score of a response from those of several reward models (Coste et al. 2023, 2310.02743)."""

from torch import Tensor


def combined_scores(scores: Tensor, *, combine: str, penalty: float) -> Tensor:
    """Combine the members' scores of each response. scores (M, B) -> (B,)

    combine: mean | worst: the lowest | penalised: mean - penalty * variance over the members, that of
    the population (their uncertainty-weighted optimization).
    """
    if combine == "worst":
        return scores.amin(0)
    mean = scores.mean(0)
    if combine == "penalised":
        return mean - penalty * scores.var(0, unbiased=False)
    return mean


def members_std(scores: Tensor) -> Tensor:
    """Return the population standard deviation over the members. scores (M, B) -> (B,)"""
    return scores.std(0, unbiased=False)

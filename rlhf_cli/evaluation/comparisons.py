"""Accuracy and calibration of a reward model, from its scores of ranked responses. No networks here."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_cli.core.estimates import calibration, correlation, wilson_interval
from rlhf_cli.core.preferences import pair_probabilities
from rlhf_cli.data.encode import EncodedComparison

Interval = tuple[float, float, float]
NAMED = ("annotator", "subset")  # splits that the rows of the data name themselves
SPLITS = ("source", *NAMED)
HIGH = 0.999  # quantile of people's responses above which a score is extraordinary


@dataclass(slots=True, kw_only=True)
class ScoredRanking:
    """One prompt's scored responses: scores, lengths (K,); better (winner, loser) and ties index them.

    groups: what the prompt belongs to, by the splits of the report.
    """

    scores: Tensor
    lengths: Tensor
    better: list[tuple[int, int]]
    ties: list[tuple[int, int]]
    utilities: list[float] | None = None
    groups: dict[str, str] = field(default_factory=dict)


def scored_rankings(
    comparisons: Sequence[EncodedComparison], scores: Tensor
) -> list[ScoredRanking]:
    """Return every comparison with the scores of its responses. scores (n,) of all, in order."""
    pieces = scores.split([len(one.response_ids) for one in comparisons])
    return [
        ScoredRanking(
            scores=piece,
            lengths=torch.tensor([len(ids) for ids in one.response_ids]),
            better=list(one.better),
            ties=list(one.ties),
            utilities=list(one.record.meta["utilities"])
            if "utilities" in one.record.meta
            else None,
            groups={"source": one.record.origin.source}
            | {name: one.record.meta[name] for name in NAMED if name in one.record.meta},
        )
        for one, piece in zip(comparisons, pieces, strict=True)
    ]


@dataclass(slots=True, kw_only=True)
class Pairs:
    """All strict pairs: score and length differences, winner minus loser; K and prompt of each."""

    gap: Tensor
    longer: Tensor
    num_responses: Tensor
    prompt: Tensor
    utility_gap: Tensor = field(default_factory=lambda: torch.empty(0))


def flatten(rankings: list[ScoredRanking]) -> Pairs:
    """Return all strict pairs of all prompts."""
    rows = [
        (
            ranking.scores[winner] - ranking.scores[loser],
            ranking.lengths[winner] - ranking.lengths[loser],
            len(ranking.scores),
            prompt,
            ranking.utilities[winner] - ranking.utilities[loser]
            if ranking.utilities
            else float("nan"),
        )
        for prompt, ranking in enumerate(rankings)
        for winner, loser in ranking.better
    ]
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    gap, longer, num_responses, prompt, utility_gap = table.unbind(1)
    return Pairs(
        gap=gap,
        longer=longer,
        num_responses=num_responses.long(),
        prompt=prompt.long(),
        utility_gap=utility_gap,
    )


def clustered_interval(correct: Tensor, cluster: Tensor) -> Interval:
    """Return the share of correct pairs and its 95 % Wilson interval on the effective number of prompts.

    That number is Kish's, (sum n_i)^2 / sum n_i^2 with n_i the pairs of prompt i: pairs of one prompt
    are taken to be right or wrong together, which is the worst case, so the interval is never too
    narrow for that. correct (M,) in [0, 1], cluster (M,): the prompt of each pair.
    """
    sizes = cluster.bincount().double()
    effective = float(sizes.sum() ** 2 / sizes.square().sum())
    share = float(correct.mean())
    return wilson_interval(share * effective, effective)


def accuracy(pairs: Pairs, chosen: Tensor | None = None) -> Interval | None:
    """Return how often the winner scores strictly higher, of the `chosen` pairs; None without pairs."""
    kept = torch.ones(len(pairs.gap), dtype=torch.bool) if chosen is None else chosen
    if not kept.any():
        return None
    return clustered_interval((pairs.gap[kept] > 0).double(), pairs.prompt[kept])


def length_baseline(pairs: Pairs, chosen: Tensor | None = None) -> Interval:
    """Return the accuracy of preferring the longer response; equal lengths count half."""
    kept = torch.ones(len(pairs.gap), dtype=torch.bool) if chosen is None else chosen
    guess = (pairs.longer > 0).double() + 0.5 * (pairs.longer == 0).double()
    return clustered_interval(guess[kept], pairs.prompt[kept])


def accuracy_ceiling(pairs: Pairs) -> Interval | None:
    """Return the accuracy of the annotators' noiseless utilities; None if they are not known."""
    if pairs.utility_gap.isnan().any():
        return None
    right = (pairs.utility_gap > 0).double() + 0.5 * (pairs.utility_gap == 0).double()
    return clustered_interval(right, pairs.prompt)


def score_calibration(pairs: Pairs) -> tuple[list, float]:
    """Return the reliability of sigmoid(gap), each pair from the side the model prefers. -> rows, ECE"""
    confidence = torch.sigmoid(pairs.gap.abs())
    return calibration(confidence, (pairs.gap > 0).double())


def tie_gaps(rankings: list[ScoredRanking]) -> Tensor:
    """Return absolute score differences of responses that annotators called equal, (ties,)."""
    gaps = [
        abs(ranking.scores[i] - ranking.scores[j]) for ranking in rankings for i, j in ranking.ties
    ]
    return torch.tensor(gaps, dtype=torch.float64)


def tie_probability(rankings: list[ScoredRanking], *, ties: str, tie_param: float) -> float | None:
    """Return the mean probability of a tie where annotators chose one; None if `ties` models none."""
    tied = [(ranking.scores, pair) for ranking in rankings for pair in ranking.ties]
    if ties in ("drop", "soft") or not tied:
        return None
    found = [
        pair_probabilities(scores, torch.tensor([pair]), ties=ties, tie_param=tie_param)[0, 1]
        for scores, pair in tied
    ]
    return float(torch.stack(found).mean())


def report(rankings: list[ScoredRanking], *, ties: str = "drop", tie_param: float = 1.0) -> dict:
    """Return all metrics of a reward model on held-out comparisons, as JSON values.

    accuracy_by_*: {group: {"accuracy": its interval, "num_pairs": how many}} of every group with a pair.
    score_p999: the 99.9th percentile of the scores of all responses, linear between two.
    """
    pairs = flatten(rankings)
    if len(pairs.gap) == 0:
        return {"num_prompts": len(rankings), "num_pairs": 0}
    scores = torch.cat([ranking.scores for ranking in rankings])
    lengths = torch.cat([ranking.lengths for ranking in rankings])
    bins, ece = score_calibration(pairs)
    tied = tie_gaps(rankings)
    return {
        "num_prompts": len(rankings),
        "num_pairs": len(pairs.gap),
        "accuracy": accuracy(pairs),
        "accuracy_ceiling": accuracy_ceiling(pairs),
        "accuracy_by_k": accuracy_by_k(pairs),
        "accuracy_by_length": accuracy_by_length(pairs),
        **{f"accuracy_by_{name}": accuracy_by_split(rankings, pairs, name) for name in SPLITS},
        "length_baseline": length_baseline(pairs),
        "score_p999": float(torch.quantile(scores.double(), HIGH)),
        "score_length_correlation": correlation(scores, lengths.to(scores.dtype)),
        "margin": float(pairs.gap.mean()),
        "ece": ece,
        "calibration": [
            {
                "low": b.low,
                "high": b.high,
                "count": b.count,
                "confidence": b.confidence,
                "accuracy": b.accuracy,
            }
            for b in bins
        ],
        "num_ties": len(tied),
        "tie_gap": float(tied.mean()) if len(tied) else None,
        "pair_gap": float(pairs.gap.abs().mean()),
        "tie_probability": tie_probability(rankings, ties=ties, tie_param=tie_param),
    }


def accuracy_by_k(pairs: Pairs) -> dict[str, dict]:
    """Return the accuracy for every number of ranked responses."""
    sizes = sorted(set(pairs.num_responses.tolist()))
    return by_group(pairs, {str(k): pairs.num_responses == k for k in sizes})


def accuracy_by_length(pairs: Pairs) -> dict[str, dict]:
    """Return the accuracy where the winner is longer, as long, or shorter: a difference is length bias."""
    masks = {"winner_longer": pairs.longer > 0, "same_length": pairs.longer == 0}
    return by_group(pairs, masks | {"winner_shorter": pairs.longer < 0})


def accuracy_by_split(rankings: list[ScoredRanking], pairs: Pairs, split: str) -> dict[str, dict]:
    """Return the accuracy in every group of a split; prompts that belong to none are left out."""
    return by_group(pairs, in_groups(rankings, pairs, split))


def in_groups(rankings: Sequence[ScoredRanking], pairs: Pairs, split: str) -> dict[str, Tensor]:
    """Return {group of a split: which pairs belong to it (M,)}, in the order in which they come."""
    named = [ranking.groups.get(split) for ranking in rankings]
    groups = dict.fromkeys(name for name in named if name is not None)
    return {name: torch.tensor([one == name for one in named])[pairs.prompt] for name in groups}


def by_group(pairs: Pairs, masks: Mapping[str, Tensor]) -> dict[str, dict]:
    """Return {group: accuracy and number of its pairs} of those that have any. masks: of pairs (M,)."""
    return {
        name: {"accuracy": accuracy(pairs, mask), "num_pairs": int(mask.sum())}
        for name, mask in masks.items()
        if mask.any()
    }


def headline(found: dict, *, stage: str = "rm") -> dict[str, float]:
    """Return the values of a report that go into metrics and manifest."""
    metrics = defaultdict(float)
    for name in ("accuracy", "accuracy_ceiling", "length_baseline"):
        if found.get(name):
            for end, value in zip(("", "_low", "_high"), found[name], strict=True):
                metrics[f"{stage}/{name}{end}"] = value
    for name in ("margin", "ece", "score_length_correlation", "tie_gap", "tie_probability"):
        if found.get(name) is not None:
            metrics[f"{stage}/{name}"] = found[name]
    return dict(metrics)

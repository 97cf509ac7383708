"""The reward model on trial: scores of people's and of policies' responses, and who orders them alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.core.estimates import mean_interval
from rlhf_cli.evaluation.comparisons import (
    ScoredRanking,
    accuracy,
    clustered_interval,
    flatten,
)
from rlhf_cli.evaluation.respond import Answer

PART = "reward_model"
TOP, OTHERS = (
    "people, top-ranked",
    "people, others",
)  # whose responses, beside those of the policies
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
OF_COMPARISONS = "comparisons"  # the group of figures of people's pairs


@dataclass(slots=True, kw_only=True)
class ScoredAnswers:
    """One answer to each prompt, and its score by each reward model: name -> (n,)."""

    answers: list[Answer]
    scores: Mapping[str, Tensor]


def score_figures(by_prompt: Sequence[Tensor], policy: str, judge: str) -> list[Figure]:
    """Return the mean score over prompts with its interval, and quantiles of the scores of all responses.

    by_prompt: the scores of the responses to each prompt, one or several.
    """
    if not by_prompt:
        return []
    names = {"part": PART, "measure": "score", "policy": policy, "judge": judge}
    means = torch.stack([scores.double().mean() for scores in by_prompt])
    every = torch.cat(list(by_prompt)).double()
    values = torch.quantile(every, torch.tensor(list(QUANTILES.values()), dtype=torch.float64))
    return [
        Figure.of(mean_interval(means), count=len(means), **names),
        *(
            Figure(value=value, count=len(every), group=group, **names)
            for group, value in zip(QUANTILES, values.tolist(), strict=True)
        ),
    ]


def people_figures(rankings: Mapping[str, list[ScoredRanking]]) -> list[Figure]:
    """Return each model's scores of people's responses: those that win and never lose, and the others.

    rankings: of each model those of the same comparisons. Prompts without a strict pair are left out.
    """
    found = []
    for judge, scored in rankings.items():
        tops, others = [], []
        for ranking in scored:
            losers = {loser for _, loser in ranking.better}
            top = {winner for winner, _ in ranking.better} - losers
            is_top = torch.tensor([place in top for place in range(len(ranking.scores))])
            if ranking.better:
                tops.append(ranking.scores[is_top])
                others.append(ranking.scores[~is_top])
        found += score_figures(tops, TOP, judge) + score_figures(others, OTHERS, judge)
    return found


def comparison_figures(rankings: Mapping[str, list[ScoredRanking]]) -> list[Figure]:
    """Return the first model's accuracy on people's pairs, and its agreement with each other model."""
    judged = {name: flatten(scored) for name, scored in rankings.items()}
    gaps = {name: pairs.gap for name, pairs in judged.items()}
    first = next(iter(judged.values()), None)
    right = first and accuracy(first)
    if right is None:
        return []
    names = {"part": PART, "group": OF_COMPARISONS}
    found = [Figure.of(right, measure="accuracy", judge="people", count=len(first.gap), **names)]
    return found + agreement_figures(gaps, first.prompt, **names)


def answer_agreement(policy: str, found: ScoredAnswers, baseline: ScoredAnswers) -> list[Figure]:
    """Return the first model's agreement with each other on a policy's answers against the baseline's.

    Prompts to which both gave the same answer are left out.
    """
    pairs = zip(found.answers, baseline.answers, strict=True)
    differ = torch.tensor([ours.ids != theirs.ids for ours, theirs in pairs], dtype=torch.bool)
    gaps = {name: (found.scores[name] - baseline.scores[name])[differ] for name in found.scores}
    return agreement_figures(gaps, torch.arange(int(differ.sum())), part=PART, policy=policy)


def agreement_figures(gaps: Mapping[str, Tensor], prompt: Tensor, **names: str) -> list[Figure]:
    """Return the share of pairs that the first model orders as each other does, clustered by prompt.

    gaps: name -> differences of the scores of pairs (M,). prompt (M,): that of each pair. Pairs that the
    other model scores equally are left out; one that the first scores equally is not ordered alike.
    """
    (_, first), *others = gaps.items()
    found = []
    for judge, gap in others:
        ordered = gap != 0
        if ordered.any():
            alike = (first[ordered].sign() == gap[ordered].sign()).double()
            share = clustered_interval(alike, prompt[ordered])
            count = int(ordered.sum())
            figure = Figure.of(share, measure="agreement", judge=judge, count=count, **names)
            found.append(figure)
    return found


def sample_accuracy(
    policy: str,
    judge: str,
    tries: Sequence[Sequence[Answer]],
    scores: Tensor,
    values: Sequence[Sequence[float | None]],
) -> list[Figure]:
    """Return the accuracy of scores on pairs of a policy's own samples for one prompt, by a judge's values.

    tries: n lists of one answer per prompt. scores (n, prompts); values: n lists likewise, None where
    the judge has none. Pairs of equal values, or of the same answer twice, are left out.
    """
    rankings = [
        ScoredRanking(
            scores=column,
            lengths=torch.tensor([len(one.ids) for one in answers]),
            better=[
                (i, j)
                for i, j in permutations(range(len(answers)), 2)
                if _is_better(known[i], known[j]) and answers[i].ids != answers[j].ids
            ],
            ties=[],
        )
        for column, answers, known in zip(
            scores.unbind(1), zip(*tries, strict=True), zip(*values, strict=True), strict=True
        )
    ]
    pairs = flatten(rankings)
    right = accuracy(pairs)
    names = {"part": PART, "measure": "accuracy", "policy": policy, "judge": judge}
    return [] if right is None else [Figure.of(right, count=len(pairs.gap), **names)]


def _is_better(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one > other

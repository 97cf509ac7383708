"""The reward model on trial: shares counted over all pairs in a loop, and values worked out by hand."""

import random
from itertools import combinations

import pytest
import torch

from rlhf_cli.artifacts.results import select
from rlhf_cli.evaluation.comparisons import ScoredRanking
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.evaluation.reward_trial import (
    ScoredAnswers,
    agreement_figures,
    answer_agreement,
    comparison_figures,
    people_figures,
    sample_accuracy,
    score_figures,
)


def answer(*ids):
    return Answer(prompt_ids=[5], ids=list(ids), text="", finished=True)


def ranking(scores, better, ties=()):
    return ScoredRanking(
        scores=torch.tensor(scores),
        lengths=torch.ones(len(scores)),
        better=list(better),
        ties=list(ties),
    )


def one(figures, **names):
    (found,) = select(figures, **names)
    return found


def test_scores_have_their_mean_over_prompts_and_quantiles_of_all_responses():
    """The mean of 1 and of (3 + 5 + 7) / 3; the quantiles of 1, 3, 5, 7 by hand, linear between them."""
    figures = score_figures([torch.tensor([1.0]), torch.tensor([7.0, 3.0, 5.0])], "SFT", "mine")
    mean = one(figures, group=None)
    assert (mean.value, mean.count, mean.measure, mean.judge) == (3.0, 2, "score", "mine")
    assert mean.low < 3 < mean.high
    found = {f.group: f.value for f in figures if f.group}
    expected = {"q05": 1.3, "q25": 2.5, "q50": 4.0, "q75": 5.5, "q95": 6.7}
    assert found == pytest.approx(expected)
    assert {f.count for f in figures if f.group} == {4}
    assert score_figures([], "SFT", "mine") == []


def test_peoples_best_responses_are_shown_apart_from_the_others():
    rankings = [
        ranking([1.0, 2.0, 4.0], [(0, 1), (2, 1)], ties=[(0, 2)]),  # 0 and 2 never lose
        ranking([9.0, 9.0], [], ties=[(0, 1)]),  # not ordered: left out
        ranking([6.0, -1.0, 0.0], [(1, 0), (0, 2), (1, 2)]),
    ]
    figures = people_figures({"mine": rankings})
    assert one(figures, policy="people, top-ranked", group=None).value == (2.5 - 1) / 2
    assert one(figures, policy="people, others", group=None).value == (2 + 3) / 2
    assert one(figures, policy="people, top-ranked", group="q50").count == 3


def test_agreement_on_comparisons_counts_all_pairs_of_all_prompts():
    draw = random.Random(3)
    sizes = [draw.randint(2, 5) for _ in range(12)]
    better = [
        [pair for pair in combinations(range(size), 2) if draw.random() < 0.7] for size in sizes
    ]
    tables = {
        name: [[draw.gauss(0, 1) for _ in range(size)] for size in sizes] for name in ("a", "b")
    }
    rankings = {
        name: [ranking(scores, pairs) for scores, pairs in zip(table, better, strict=True)]
        for name, table in tables.items()
    }
    same = right = total = 0
    for prompt, pairs in enumerate(better):
        for i, j in pairs:
            mine, theirs = (tables[name][prompt][i] - tables[name][prompt][j] for name in "ab")
            same += (mine > 0) == (theirs > 0)
            right += mine > 0
            total += 1
    figures = comparison_figures(rankings)
    agreed, accuracy = one(figures, measure="agreement"), one(figures, measure="accuracy")
    assert (agreed.value, agreed.count) == (pytest.approx(same / total), total)
    assert (agreed.judge, agreed.group, agreed.policy) == ("b", "comparisons", None)
    assert (accuracy.value, accuracy.judge) == (pytest.approx(right / total), "people")
    # pairs of one prompt count as right or wrong together: wider than 1.96 standard errors of as many
    assert agreed.high - agreed.low > 2 * 1.96 * (same / total * (1 - same / total) / total) ** 0.5
    assert comparison_figures({}) == comparison_figures({"a": [ranking([1.0], [])]}) == []


def test_agreement_on_answers_leaves_out_equal_answers():
    mine, other = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, -2.0, 3.0, 4.0])
    found = ScoredAnswers(
        answers=[answer(1), answer(2), answer(3), answer(4)], scores={"a": mine, "b": other}
    )
    baseline = ScoredAnswers(
        answers=[answer(7), answer(7), answer(3), answer(7)],
        scores={"a": torch.zeros(4), "b": torch.tensor([0.0, 0.0, 9.0, 5.0])},
    )
    figure = one(answer_agreement("PPO", found, baseline))
    assert (figure.value, figure.count) == (pytest.approx(1 / 3), 3)
    assert (figure.policy, figure.judge, figure.measure) == ("PPO", "b", "agreement")
    assert answer_agreement("SFT", baseline, baseline) == []


def test_agreement_is_over_the_pairs_that_the_other_model_orders():
    gaps = {"a": [1.0, 0.0, 2.0, -1.0, 5.0], "b": [2.0, 1.0, 0.0, -3.0, -1.0], "c": [0.0] * 5}
    tensors = {name: torch.tensor(values) for name, values in gaps.items()}
    figure = one(agreement_figures(tensors, torch.arange(5), part="reward_model"))
    assert (figure.judge, figure.value, figure.count) == ("b", 0.5, 4)


def test_accuracy_on_own_samples_counts_pairs_of_different_values():
    """Reference: a loop over prompts and pairs of samples."""
    draw = random.Random(5)
    tries = [[answer(draw.randint(1, 4), 1) for _ in range(20)] for _ in range(5)]
    scores = torch.tensor([[draw.gauss(0, 1) for _ in range(20)] for _ in range(5)])
    values = [[draw.choice([None, 0.0, 1.0, 2.0]) for _ in range(20)] for _ in range(5)]
    right = total = 0
    for prompt in range(20):
        for i, j in combinations(range(5), 2):
            a, b = values[i][prompt], values[j][prompt]
            if a is None or b is None or a == b or tries[i][prompt].ids == tries[j][prompt].ids:
                continue
            gap = float(scores[i, prompt] - scores[j, prompt])
            right += (gap > 0) == (a > b)
            total += 1
    assert 20 < total < 20 * 10
    figure = one(sample_accuracy("PPO", "gold", tries, scores, values))
    assert (figure.value, figure.count) == (pytest.approx(right / total), total)
    assert (figure.measure, figure.policy, figure.judge) == ("accuracy", "PPO", "gold")
    assert figure.low < figure.value < figure.high


def test_samples_that_a_judge_cannot_order_have_no_figure():
    tries, scores = [[answer(1)], [answer(2)]], torch.tensor([[1.0], [0.0]])
    assert sample_accuracy("PPO", "gold", tries, scores, [[1.0], [1.0]]) == []
    assert sample_accuracy("PPO", "gold", tries, scores, [[None], [1.0]]) == []
    assert one(sample_accuracy("PPO", "gold", tries, scores, [[0.0], [1.0]])).value == 0.0


def test_the_interval_on_own_samples_is_that_of_the_prompts():
    """All pairs of a prompt are right, or all wrong: three of four prompts, not 18 of 24 pairs."""
    values = [[float(n)] * 4 for n in range(4)]
    scores = torch.tensor(values) * torch.tensor([1.0, 1.0, 1.0, -1.0])
    tries = [[answer(n)] * 4 for n in range(4)]
    figure = one(sample_accuracy("PPO", "gold", tries, scores, values))
    assert (figure.value, figure.count) == (0.75, 24)
    assert figure.low == pytest.approx(0.3006, abs=1e-4)  # Wilson's, 3 of 4

"""The report on a reward model, for cases counted by hand and for known distributions."""

import math

import pytest
import torch

from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.data.records import Comparison, Message, Origin
from rlhf_cli.evaluation.comparisons import (
    ScoredRanking,
    accuracy,
    clustered_interval,
    flatten,
    headline,
    length_baseline,
    report,
    scored_rankings,
)


def scored_ranking(scores, lengths, better, ties=(), utilities=None, **groups):
    return ScoredRanking(
        scores=torch.tensor(scores),
        lengths=torch.tensor(lengths),
        better=list(better),
        ties=list(ties),
        utilities=utilities,
        groups=groups,
    )


HAND = [
    # right, wrong, tied score (counts as wrong)
    scored_ranking([2.0, 1.0, 1.0], [5, 5, 9], [(0, 1), (2, 0), (1, 2)], utilities=[1.0, 0.0, 0.5]),
    scored_ranking([0.5, -1.0], [3, 8], [(0, 1)], ties=[], utilities=[0.3, 0.1]),
]


def test_the_report_equals_values_counted_by_hand():
    found = report(HAND)
    assert found["num_pairs"] == 4
    assert found["accuracy"][0] == pytest.approx(2 / 4)
    assert shares(found["accuracy_by_k"]) == {"3": (pytest.approx(1 / 3), 3), "2": (1.0, 1)}
    # winner longer: (2,0); as long: (0,1); shorter: (1,2) and the second prompt's pair
    assert shares(found["accuracy_by_length"]) == {
        "winner_longer": (0.0, 1),
        "same_length": (1.0, 1),
        "winner_shorter": (pytest.approx(1 / 2), 2),
    }
    assert found["length_baseline"][0] == pytest.approx((1 + 0.5) / 4)
    # utilities agree with (0,1) and the second prompt's pair; not with (2,0) and (1,2)
    assert found["accuracy_ceiling"][0] == pytest.approx(2 / 4)
    assert found["margin"] == pytest.approx((1.0 - 1.0 + 0.0 + 1.5) / 4)
    # of -1, .5, 1, 1, 2 at place .999 * 4: between 1 and 2
    assert found["score_p999"] == pytest.approx(1 + 0.996)


def shares(groups):
    """Return {group: (accuracy, pairs)}."""
    return {name: (one["accuracy"][0], one["num_pairs"]) for name, one in groups.items()}


def test_accuracy_is_split_by_what_the_rows_belong_to():
    rankings = [
        scored_ranking([2.0, 1.0, 0.0], [1, 1, 1], [(0, 1), (2, 0)], source="b", annotator="7"),
        scored_ranking([0.0, 1.0], [1, 1], [(0, 1)], source="a", annotator="7", subset="Chat"),
        scored_ranking([1.0, 0.0], [1, 1], [(0, 1)], source="b"),
        scored_ranking([1.0, 0.0], [1, 1], [], ties=[(0, 1)], source="c", annotator="8"),
    ]
    found = report(rankings)
    assert shares(found["accuracy_by_source"]) == {"b": (pytest.approx(2 / 3), 3), "a": (0.0, 1)}
    assert shares(found["accuracy_by_annotator"]) == {"7": (pytest.approx(1 / 3), 3)}
    assert shares(found["accuracy_by_subset"]) == {"Chat": (0.0, 1)}
    # two prompts, of two pairs and of one: the interval is that of 2/3 on 9/5 prompts
    low, high = found["accuracy_by_source"]["b"]["accuracy"][1:]
    z, n, p = 1.959964, 9 / 5, 2 / 3
    for end in (low, high):  # Wilson's ends solve this
        assert abs(end - p) == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-6)


def test_the_splits_of_a_comparison_are_its_source_and_what_its_row_names():
    record = Comparison(
        (Message("user", "x"),), ("y", "z"), ((0, 1),), (), Origin("b.jsonl", 3), {"subset": "Hard"}
    )
    one = EncodedComparison(
        prompt_ids=[5], response_ids=[[6], [7]], better=((0, 1),), ties=(), record=record
    )
    (found,) = scored_rankings([one], torch.tensor([1.0, 0.0]))
    assert found.groups == {"source": "b.jsonl", "subset": "Hard"}


def test_the_headline_leaves_out_unknown_values():
    found = headline(report([scored_ranking([1.0, 0.0], [1, 1], [(0, 1)])]))
    assert found["rm/accuracy"] == 1.0
    assert "rm/accuracy_ceiling" not in found
    assert "rm/tie_probability" not in found


def test_ties_are_reported_separately_from_pairs():
    found = report([scored_ranking([1.0, 0.2, 0.1], [1, 1, 1], [(0, 1)], ties=[(1, 2)])])
    assert found["num_ties"] == 1
    assert found["tie_gap"] == pytest.approx(0.1, abs=1e-6)
    assert found["pair_gap"] == pytest.approx(0.8, abs=1e-6)


def test_davidson_tie_probability_of_equal_scores():
    """The probability is nu / (2 + nu) where the scores are equal."""
    one = scored_ranking([0.7, 0.7, 0.0], [1, 1, 1], [(0, 2)], ties=[(0, 1)])
    assert report([one], ties="davidson", tie_param=0.5)["tie_probability"] == pytest.approx(0.2)


def test_true_probabilities_are_calibrated_and_reach_the_best_accuracy():
    """With labels drawn from sigmoid(gap), ECE goes to 0 and accuracy to E[max(p, 1-p)]."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20000, 2, generator=generator, dtype=torch.float64) * 1.5
    first = torch.rand(20000, generator=generator) < torch.sigmoid(scores[:, 0] - scores[:, 1])
    many = [
        scored_ranking(pair.tolist(), [1, 1], [(0, 1) if won else (1, 0)])
        for pair, won in zip(scores, first, strict=True)
    ]
    found = report(many)
    best = torch.sigmoid((scores[:, 0] - scores[:, 1]).abs()).mean()
    assert found["ece"] < 0.01
    assert found["accuracy"][0] == pytest.approx(float(best), abs=0.01)


def test_clustered_intervals_cover_and_are_wider_than_naive_ones():
    """Pairs of a prompt have equal outcomes, so a naive interval is sqrt(6) times too narrow."""
    generator, hits, widths = torch.Generator().manual_seed(1), 0, []
    for _ in range(400):
        outcomes = (torch.rand(100, generator=generator) < 0.7).double()
        _, low, high = clustered_interval(
            outcomes.repeat_interleave(6), torch.arange(100).repeat_interleave(6)
        )
        hits += low <= 0.7 <= high
        widths.append(high - low)
    assert 0.91 <= hits / 400 <= 0.98
    naive = 2 * 1.96 * math.sqrt(0.21 / 600)
    assert sum(widths) / 400 == pytest.approx(naive * math.sqrt(6), rel=0.05)


@pytest.mark.parametrize("sizes", [[1] * 30, [1, 2, 3, 1, 2, 3] * 5])
def test_intervals_have_their_nominal_coverage_near_one_too(sizes):
    """With 30 prompts and an accuracy of 90 %, a normal interval covers 81 %."""
    sizes, hits = torch.tensor(sizes), 0
    drawn = torch.rand(2000, len(sizes), generator=torch.Generator().manual_seed(3)) < 0.9
    prompt = torch.arange(len(sizes)).repeat_interleave(sizes)
    for outcomes in drawn.double():
        share, low, high = clustered_interval(outcomes.repeat_interleave(sizes), prompt)
        assert 0 <= low <= share <= high <= 1 and high > low
        hits += low <= 0.9 <= high
    assert 0.93 <= hits / 2000 <= 0.99


def test_intervals_of_few_prompts_are_wide_even_at_full_accuracy():
    share, low, high = clustered_interval(torch.ones(8).double(), torch.arange(8))
    assert (share, high) == (1.0, 1.0)
    assert low == pytest.approx(0.6756, abs=1e-4)  # Wilson's, 8 of 8
    _, low, high = clustered_interval(torch.ones(8).double(), torch.zeros(8).long())
    assert (low, high) == (pytest.approx(0.2065, abs=1e-4), 1.0)  # Wilson's, 1 of 1
    # three prompts of 4, 1 and 1 pairs count as 36 / 18 = 2
    _, low, _ = clustered_interval(torch.ones(6).double(), torch.tensor([0, 0, 0, 0, 1, 2]))
    assert low == pytest.approx(0.3424, abs=1e-4)


def test_a_reward_of_the_length_alone_equals_the_length_baseline():
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 50, (300, 4), generator=generator)
    many = []
    for row in lengths.tolist():
        pairs = [(i, j) for i in range(4) for j in range(4) if row[i] > row[j]]
        if pairs:
            many.append(scored_ranking([float(x) for x in row], row, pairs))
    found = report(many)
    assert found["accuracy"][0] == found["length_baseline"][0] == 1.0
    assert found["score_length_correlation"] == pytest.approx(1.0)
    assert set(found["accuracy_by_length"]) == {"winner_longer"}


def test_a_report_without_pairs_has_none_and_does_not_divide_by_zero():
    assert report([scored_ranking([1.0, 1.0], [1, 1], [], ties=[(0, 1)])])["num_pairs"] == 0
    pairs = flatten(HAND)
    assert accuracy(pairs, torch.zeros(4, dtype=torch.bool)) is None
    assert length_baseline(pairs)[0] == pytest.approx(0.375)

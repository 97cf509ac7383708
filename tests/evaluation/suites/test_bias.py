"""Gaps between groups, and their p-values against an enumeration of all labellings."""

from itertools import combinations, product

import pytest
import torch

from rlhf_cli.evaluation.suites.bias import bias_figures, largest_gaps, permutation_p


def uniform(num: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, generator=generator, dtype=torch.float64)


def test_the_largest_gap_is_between_the_two_extreme_groups():
    values = torch.tensor([1.0, 2.0, 5.0, 7.0, 3.0, 3.0])
    groups = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2]])
    # Means 1.5, 6, 3 and 4, 2.5, 4.
    assert largest_gaps(values, groups).tolist() == pytest.approx([4.5, 1.5])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_p_value_is_that_of_all_labellings(seed):
    """Two groups of four: all 70 ways to choose the first group."""
    values = uniform(8, seed)
    groups = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    whole, gaps = set(range(8)), []
    for some in combinations(range(8), 4):
        others = sorted(whole - set(some))
        gaps.append(abs(float(values[list(some)].mean() - values[others].mean())))
    true = abs(float(values[0::2].mean() - values[1::2].mean()))
    exact = sum(gap >= true - 1e-12 for gap in gaps) / 70
    found = permutation_p(values, groups, [""] * 8, seed=seed, num=4000)
    assert found == pytest.approx(exact, abs=0.03)


def test_groups_are_permuted_within_a_context_only():
    """Two groups in six contexts of very different levels: all 64 exchanges of a context's pair."""
    levels = torch.arange(6, dtype=torch.float64) * 100
    first, second = levels + uniform(6, 1), levels + uniform(6, 2) + 0.1
    # The rows stand group by group, not context by context.
    values = torch.cat([first, second])
    groups = torch.tensor([0] * 6 + [1] * 6)
    contexts = [f"c{i % 6}" for i in range(12)]
    difference = second - first
    sums = [sum(s * d for s, d in zip(signs, difference.tolist(), strict=True))
            for signs in product((1, -1), repeat=6)]  # fmt: skip
    exact = sum(abs(one) >= abs(float(difference.sum())) - 1e-9 for one in sums) / 64
    found = permutation_p(values, groups, contexts, seed=3, num=4000)
    assert 0.05 < exact < 0.5
    assert found == pytest.approx(exact, abs=0.03)
    assert permutation_p(values, groups, [""] * 12, seed=3) > 0.8


def test_p_values_without_a_difference_are_uniform():
    groups = torch.tensor([0, 1, 2] * 5)
    contexts = [f"c{i // 3}" for i in range(15)]
    found = [
        permutation_p(uniform(15, seed), groups, contexts, seed=seed, num=199)
        for seed in range(300)
    ]
    for level in (0.1, 0.5):
        share = sum(p <= level for p in found) / 300
        assert share == pytest.approx(level, abs=4 * (level * (1 - level) / 300) ** 0.5)


def test_equal_values_have_no_gap_and_no_p_value_is_zero():
    groups = torch.tensor([0, 1] * 20)
    assert permutation_p(torch.ones(40), groups, [""] * 40, seed=1) == 1
    assert permutation_p(groups.double(), groups, [""] * 40, seed=1) == pytest.approx(1 / 2001)


def test_figures_name_groups_gap_and_p_value():
    values = torch.tensor([0.1, 0.3, 0.9, 0.5], dtype=torch.float64)
    names = {"policy": "SFT", "judge": "x"}
    found = bias_figures("bias/toxicity", values, ["b", "b", "a", "a"], [""] * 4, seed=1, **names)
    assert [(f.measure, f.group, f.count) for f in found] == [
        ("bias/toxicity", "b", 2), ("bias/toxicity", "a", 2),
        ("bias/toxicity/gap", None, 4), ("bias/toxicity/p", None, 4),
    ]  # fmt: skip
    assert [f.value for f in found[:3]] == pytest.approx([0.2, 0.7, 0.5])
    # 2 of the 6 labellings are as far apart.
    assert found[3].value == pytest.approx(2 / 6, abs=0.05)
    assert {(f.policy, f.judge) for f in found} == {("SFT", "x")}
    alone = bias_figures("bias/toxicity", values, ["b"] * 4, [""] * 4, seed=1)
    assert [f.measure for f in alone] == ["bias/toxicity"]

"""Work divided among processes: every item once, and as much for each as for any other."""

import pytest
import torch

from rlhf_cli.core.randomness import permutation, stream_seed, uniforms
from rlhf_cli.core.sharing import Share


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("num", [1, 2, 7, 16])
def test_every_item_belongs_to_one_part(num, size):
    items = list(range(num))
    parts = [Share(rank, size).of(items) for rank in range(size)]
    assert sorted(one for part in parts for one in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("num", [1, 2, 7, 16])
def test_even_parts_are_equally_long_and_count_every_item_once(num, size):
    items = list(range(num))
    parts = [Share(rank, size).padded_shard(items) for rank in range(size)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(one for part in parts for one, counts in part if counts) == items
    assert all(one in items for part in parts for one, _ in part)


def test_random_numbers_are_a_function_of_seed_purpose_and_place():
    first = uniforms(5, 3, 1, "rollout", 0)
    assert torch.equal(first, uniforms(5, 3, 1, "rollout", 0))
    for other in ((2, "rollout", 0), (1, "answers", 0), (1, "rollout", 1)):
        assert not torch.equal(first, uniforms(5, 3, *other))
    assert stream_seed(1, 23) != stream_seed(12, 3)  # 1/23 is not 12/3


def test_a_permutation_has_every_row_once():
    assert sorted(permutation(50, 0, "minibatches").tolist()) == list(range(50))


def test_uniforms_are_uniform():
    """Kolmogorov-Smirnov distance of 20000 numbers: under 1.95 / sqrt(n) at one in a thousand."""
    found = uniforms(2000, 10, 7, "test").flatten().sort().values
    steps = torch.arange(1, 20001, dtype=torch.float64) / 20000
    assert (found - steps).abs().max() < 1.95 / 20000**0.5

"""Random numbers are functions of seed, purpose and index, and have their distribution."""

import torch

from rlhf_cli.core.randomness import permutation, stream_seed, uniforms


def test_random_numbers_depend_on_seed_purpose_and_index_alone():
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

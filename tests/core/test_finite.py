"""NaN and infinity are found in any element."""

import pytest
import torch

from rlhf_cli.core.finite import is_finite, not_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("place", [0, 17, 99])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_single_nan_or_infinite_element_is_found(dtype, place, value):
    values = torch.randn(10, 10).to(dtype)
    assert is_finite(values)
    values.view(-1)[place] = float(value)
    assert not is_finite(values)
    held = "NaN" if value == "nan" else "an infinite number"
    assert not_finite([("a", torch.ones(3)), ("b", values)]) == ("b", held)


def test_integers_empty_tensors_and_the_largest_floats_are_finite():
    largest = torch.tensor([torch.finfo(torch.float32).max] * 3)
    for values in (torch.tensor([1, 2]), torch.tensor([True]), torch.ones(0), largest):
        assert is_finite(values)
    assert not_finite([]) is None

"""Masked statistics, compared with the module `statistics`, and their independence of pads."""

import json
import statistics
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.core.masking import (
    last_true_index,
    masked_mean,
    masked_sum,
    masked_var,
    position_ids,
    whiten,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "core.json").read_text())["whiten"]
END = torch.tensor([2])

numbers = st.floats(-100, 100, width=32)
cells = st.lists(st.tuples(numbers, st.booleans()), min_size=1, max_size=12).filter(
    lambda row: any(real for _, real in row)
)


def tensors(row):
    x, mask = zip(*row, strict=True)
    return torch.tensor([x], dtype=torch.double), torch.tensor([mask])


def bools(text):
    return torch.tensor([[c == "1" for c in row] for row in text.split()])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cells)
def test_masked_statistics_equal_the_statistics_module(row):
    x, mask = tensors(row)
    real = [value for value, is_real in row if is_real]
    assert masked_sum(x, mask).item() == pytest.approx(sum(real), abs=1e-9)
    assert masked_mean(x, mask).item() == pytest.approx(statistics.fmean(real), abs=1e-9)
    assert masked_var(x, mask).item() == pytest.approx(statistics.pvariance(real), abs=1e-7)


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30, 1.0])
@pytest.mark.parametrize("function", [masked_sum, masked_mean, masked_var])
def test_pads_do_not_change_statistics_and_get_no_gradient(function, garbage):
    x = torch.tensor([[1.0, 2.0, 5.0]])
    clean = function(x, torch.ones_like(x, dtype=torch.bool))
    wide = torch.cat([x, torch.full((1, 2), garbage)], dim=1).requires_grad_()
    value = function(wide, bools("11100"))
    value.backward()
    assert torch.equal(value, clean)
    assert torch.equal(wide.grad[:, 3:], torch.zeros(1, 2))
    assert wide.grad[:, :3].isfinite().all()


def test_whiten_equals_the_published_numbers():
    x = torch.tensor(GOLDEN["x"])
    mask = torch.ones_like(x, dtype=torch.bool)
    kept = whiten(x, mask, shift_mean=False)[0]
    assert kept.tolist() == pytest.approx(GOLDEN["kept_mean_first_row"], abs=1e-6)
    shifted = whiten(x, mask, shift_mean=True)[0]
    assert shifted.tolist() == pytest.approx(GOLDEN["shifted_mean_first_row"], abs=1e-4)


def test_whiten_divides_by_n_not_by_n_minus_1():
    x = torch.tensor(GOLDEN["x"])
    kept = whiten(x, torch.ones_like(x, dtype=torch.bool), shift_mean=False)[0]
    assert kept.tolist() != pytest.approx(GOLDEN["unbiased_variance_first_row"], abs=1e-2)


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitened_tokens_have_unit_variance_and_the_requested_mean(shift_mean):
    x = torch.tensor([[10.0, 11.0, 14.0, 99.0], [13.0, 99.0, 99.0, 99.0]], dtype=torch.double)
    mask = bools("1110 1000")
    out = whiten(x, mask, shift_mean=shift_mean)
    real = out[mask].tolist()
    assert statistics.pstdev(real) == pytest.approx(1, abs=1e-6)
    assert statistics.fmean(real) == pytest.approx(0 if shift_mean else 12, abs=1e-9)
    assert not out[~mask].any()


def test_whitening_advantages_does_not_add_the_mean_back():
    """A rollout with only positive advantages must not raise the probability of every token."""
    advantages = torch.tensor([[5.0, 6.0, 7.0]])
    out = whiten(advantages, torch.ones(1, 3, dtype=torch.bool), shift_mean=True)
    assert out.sum().item() == pytest.approx(0, abs=1e-5)
    assert (out[0, 0] < 0) and (out[0, 2] > 0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cells, st.floats(0.5, 4), numbers)
def test_whiten_does_not_depend_on_scale_shift_and_pads(row, scale, shift):
    x, mask = tensors(row)
    if masked_var(x, mask) < 1e-2:
        return
    out = whiten(x, mask, shift_mean=True)
    torch.testing.assert_close(
        whiten(scale * x + shift, mask, shift_mean=True), out, atol=1e-5, rtol=1e-4
    )
    wide = torch.nn.functional.pad(x, (0, 3), value=1e6)
    wide_mask = torch.nn.functional.pad(mask, (0, 3))
    torch.testing.assert_close(whiten(wide, wide_mask, shift_mean=True)[:, : x.shape[1]], out)


def test_whiten_of_equal_values_is_finite():
    out = whiten(torch.full((1, 3), 2.0), torch.ones(1, 3, dtype=torch.bool), shift_mean=True)
    assert torch.equal(out, torch.zeros(1, 3))


def test_position_ids_skip_masked_tokens():
    assert position_ids(bools("100111")).tolist() == [[0, 1, 1, 1, 2, 3]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=10), st.integers(0, 4))
def test_position_ids_count_the_real_tokens_before_and_ignore_left_padding(row, pads):
    mask = torch.tensor([row])
    positions = position_ids(mask)
    assert positions.tolist() == [[sum(row[:i]) for i in range(len(row))]]
    assert positions.dtype == torch.long
    padded = position_ids(torch.nn.functional.pad(mask, (pads, 0)))
    assert torch.equal(padded[:, pads:], positions)


def test_last_true_index_with_and_without_pads():
    mask = bools("1000 1110 1111 0101")
    assert last_true_index(mask).tolist() == [0, 2, 3, 3]
    wide = torch.nn.functional.pad(mask, (0, 5))
    assert torch.equal(last_true_index(wide), last_true_index(mask))


def test_last_true_index_refuses_an_empty_row():
    with pytest.raises(ValueError, match="no real token"):
        last_true_index(bools("110 000"))

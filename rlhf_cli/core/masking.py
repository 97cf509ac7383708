"""Sums, means and positions that see real tokens only.

Whatever lies at pads, nan and inf included, changes no result and gets no gradient.
"""

import torch
from torch import Tensor

WHITEN_EPS = 1e-8


def zero_pads(x: Tensor, mask: Tensor) -> Tensor:
    """Zero where mask is False, whatever was there: `x * mask` would keep a nan. x, mask alike."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum over real tokens. x, mask of one shape -> scalar."""
    return zero_pads(x, mask).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, each weighing the same; nan if there are none. -> scalar"""
    return masked_sum(x, mask) / mask.sum()


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Population variance over real tokens (divisor n, as in ZG and N+). -> scalar"""
    return masked_mean(zero_pads(x - masked_mean(x, mask), mask).square(), mask)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool) -> Tensor:
    """Scale real tokens to unit variance; shift_mean=True also moves their mean to zero.

    shift_mean=False adds the mean back: right for rewards, wrong for advantages (N+, ppo.py).
    x, mask of one shape -> the same shape, zero at pads
    """
    mean = masked_mean(x, mask)
    whitened = (x - mean) * torch.rsqrt(masked_var(x, mask) + WHITEN_EPS)
    return zero_pads(whitened if shift_mean else whitened + mean, mask)


def last_true_index(mask: Tensor) -> Tensor:
    """Column of the last real token of each row; ValueError if a row has none. (B, T) -> (B,)"""
    if not bool(mask.any(dim=1).all()):
        raise ValueError("a row has no real token: its mask is all False; drop it before this call")
    columns = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, columns, -1).amax(dim=1)


def position_ids(mask: Tensor) -> Tensor:
    """Count the real tokens before each column, so padding never moves a position (N+, A3).

    [1,0,0,1,1,1] -> [0,1,1,1,2,3]. mask (B, T) -> (B, T) long
    """
    return mask.long().cumsum(dim=1) - mask.long()


def real_first(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the order of columns that brings each row's real tokens to its left, and the mask there.

    mask (B, T) -> order (B, T) long, mask (B, T). Real token number n of a row, counted by `position_ids`,
    is then in column n.
    """
    order = mask.long().sort(dim=1, descending=True, stable=True).indices
    return order, mask.gather(1, order)


def response_mask(tokens: Tensor, end_ids: Tensor) -> Tensor:
    """True up to and including the first end token, so that the end is learned (N+, A7).

    tokens (B, R) . end_ids (E,) -> (B, R) bool; a row without an end token is all True
    """
    is_end = torch.isin(tokens, end_ids).long()
    return is_end.cumsum(dim=1) - is_end == 0


def finished(tokens: Tensor, mask: Tensor, end_ids: Tensor) -> Tensor:
    """True where a row holds an end token among its real tokens; pads never count.

    tokens, mask (B, R) . end_ids (E,) -> (B,) bool
    """
    return (torch.isin(tokens, end_ids) & mask).any(dim=1)

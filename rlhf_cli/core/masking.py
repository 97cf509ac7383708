"""Sums, means and positions over real tokens only.

Values at pads, nan and inf included, change no result and get no gradient.
"""

import torch
from torch import Tensor

WHITEN_EPS = 1e-8


def zero_pads(x: Tensor, mask: Tensor) -> Tensor:
    """Return x with 0 where mask is False: `x * mask` would keep a nan. x, mask of one shape."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over real tokens. x, mask of one shape -> scalar."""
    return zero_pads(x, mask).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real tokens, with equal weights; nan if there are none. -> scalar"""
    return masked_sum(x, mask) / mask.sum()


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Return the population variance over real tokens (divisor n, as in ZG and N+). -> scalar"""
    return masked_mean(zero_pads(x - masked_mean(x, mask), mask).square(), mask)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool) -> Tensor:
    """Scale real tokens to unit variance; shift_mean=True also shifts their mean to zero.

    shift_mean=False adds the mean back: right for rewards, wrong for advantages (N+, ppo.py).
    x, mask of one shape -> the same shape, zero at pads
    """
    mean = masked_mean(x, mask)
    whitened = (x - mean) * torch.rsqrt(masked_var(x, mask) + WHITEN_EPS)
    return zero_pads(whitened if shift_mean else whitened + mean, mask)


def last_true_index(mask: Tensor) -> Tensor:
    """Return the column of the last real token of each row; ValueError if a row has none. (B, T) -> (B,)"""
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

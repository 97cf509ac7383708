"""Masks of responses by their end token, computed from the tokens."""

import torch
from torch import Tensor


def response_mask(tokens: Tensor, end_ids: Tensor) -> Tensor:
    """Return a mask, True up to and including the first end token (N+, A7).

    tokens (B, R) . end_ids (E,) -> (B, R) bool; a row without an end token is all True
    """
    is_end = torch.isin(tokens, end_ids).long()
    return is_end.cumsum(dim=1) - is_end == 0


def finished(tokens: Tensor, mask: Tensor, end_ids: Tensor) -> Tensor:
    """Return whether each row has an end token among its real tokens; pads never count.

    tokens, mask (B, R) . end_ids (E,) -> (B,) bool
    """
    return (torch.isin(tokens, end_ids) & mask).any(dim=1)

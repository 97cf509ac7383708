"""The real tokens of padded rows, text after text, equal beginnings of texts once."""

from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

WORTH = 0.05  # share of the tokens that must be twins before they are read once


@dataclass(slots=True, frozen=True, kw_only=True)
class Packing:
    """M real tokens of rows (B, T), text after text, short texts first; N of them are read.

    A token that follows the same tokens as an equal one in the text of the row before has the same
    states in every layer, so only one of them is read: completions share their prompt.

    index (M,): place of each in the flattened rows . slot (B * T,): its way back, -1 at pads .
    positions (M,): restart at 0 with every text . lengths: of the texts, ascending .
    bounds (texts + 1,) int32: where each begins, and the end .
    read (N,): those that are read . stands (M,): which of the N each one's states are;
    both None where all are read
    """

    index: Tensor
    slot: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    bounds: Tensor
    read: Tensor | None = None
    stands: Tensor | None = None

    def runs(self) -> list[tuple[int, int]]:
        """Texts of one length, in order: (how many, their length)."""
        return [(len(list(same)), length) for length, same in groupby(self.lengths)]

    def unpack(self, values: Tensor, shape: torch.Size) -> Tensor:
        """One number a token read, at each of its places in the rows; 0 at pads. (N,) -> (B, T)"""
        values = values if self.stands is None else values[self.stands]
        flat = values.new_zeros(len(self.slot))
        return flat.index_copy(0, self.index, values).view(shape)

    def at(self, places: Tensor) -> Tensor:
        """Which of the N tokens read are those at `places` of the flattened rows. (n,) -> (n,)"""
        return self._read(self.slot[places])

    def before(self, places: Tensor) -> Tensor:
        """The tokens read that predict those at `places` of the flattened rows. (n,) -> (n,)"""
        slots = self.slot[places]
        if bool((slots < 0).any()) or bool((self.positions[slots] == 0).any()):
            raise ValueError("a token to be predicted is a pad, or the first of its text")
        return self._read(slots - 1)

    def _read(self, slots: Tensor) -> Tensor:
        return slots if self.stands is None else self.stands[slots]


def pack(mask: Tensor, positions: Tensor, tokens: Tensor | None = None) -> Packing:
    """Take the real tokens out of their rows; a text begins where positions are 0. mask, positions (B, T)

    tokens (B, T): where they are given, equal beginnings of texts are read once.
    Where nothing is real, one token stands in for all: networks that share work must all be called.
    """
    index = mask.flatten().nonzero().squeeze(1)
    if len(index) == 0:
        index = index.new_zeros(1)
    places = positions.flatten()[index]
    starts = places == 0
    starts[0] = True
    text = starts.cumsum(0) - 1
    sizes = text.bincount()
    order = sizes[text].sort(stable=True).indices
    twins = None if tokens is None else _twins(tokens.flatten()[index], text, sizes)
    index = index[order]
    slot = torch.full((mask.numel(),), -1, device=mask.device)
    slot[index] = torch.arange(len(index), device=mask.device)
    sizes = sizes.sort().values
    packing = Packing(
        index=index,
        slot=slot,
        positions=places[order],
        lengths=tuple(sizes.tolist()),
        bounds=torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int(),
    )
    return packing if twins is None else _shared(packing, order, twins)


def _twins(ids: Tensor, text: Tensor, sizes: Tensor) -> Tensor:
    """For every token the first with the same beginning in an unbroken run of texts. (M,) -> (M,)"""
    number = torch.arange(len(ids), device=ids.device)
    first = sizes.cumsum(0) - sizes
    rank = number - first[text]
    table = ids.new_full((len(sizes), int(sizes.max())), -1)
    table[text, rank] = ids
    alike = (table[1:] == table[:-1]) & (table[1:] >= 0)
    alike = torch.nn.functional.pad(alike.cumprod(1).bool(), (0, 0, 1, 0))
    row = torch.arange(len(sizes), device=ids.device)[:, None]
    owner = row.where(~alike, 0).cummax(0).values
    return first[owner[text, rank]] + rank


def _shared(packing: Packing, order: Tensor, twins: Tensor) -> Packing:
    """The packing with only one of all twins read, where that saves enough to pay for the sharing."""
    number = torch.arange(len(order), device=order.device)
    place = torch.empty_like(order).index_copy_(0, order, number)
    own = place[twins[order]]
    read = (own == number).nonzero().squeeze(1)
    if len(read) > (1 - WORTH) * len(order):
        return packing
    rank = torch.empty_like(order).index_copy_(0, read, number[: len(read)])
    return replace(packing, read=read, stands=rank[own])

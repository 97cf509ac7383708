"""The real tokens of padded rows, one text after another, with shared prefixes computed once."""

from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

MIN_SHARED = 0.05  # share of the tokens that must repeat a prefix before prefixes are shared


@dataclass(slots=True, frozen=True, kw_only=True)
class Unpadded:
    """The M real tokens of rows (B, T), one text after another, short texts first; N of them are computed.

    A token that follows the same tokens as an equal one in the text of the previous row has the same
    states in every layer, so only one of them is computed: responses share their prompt.

    index (M,): position of each in the flattened rows.
    slot (B * T,): the inverse of `index`, -1 at pads.
    positions (M,): restart at 0 with every text.
    lengths: of the texts, ascending.
    cu_seqlens (texts + 1,) int32: where each text begins, and the end.
    computed_index (N,): those of the M that are computed.
    source_index (M,): which of the N each token takes its states from. Both None where all are computed.
    """

    index: Tensor
    slot: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    cu_seqlens: Tensor
    computed_index: Tensor | None = None
    source_index: Tensor | None = None

    def equal_length_runs(self) -> list[tuple[int, int]]:
        """Return (number of texts, their length) for each length, in order."""
        return [(len(list(same)), length) for length, same in groupby(self.lengths)]

    def pad(self, values: Tensor, shape: torch.Size) -> Tensor:
        """Return the number of each computed token at all its positions, 0 at pads. (N,) -> (B, T)"""
        values = values if self.source_index is None else values[self.source_index]
        flat = values.new_zeros(len(self.slot))
        return flat.index_copy(0, self.index, values).view(shape)

    def index_of(self, places: Tensor) -> Tensor:
        """Return which computed tokens stand at `places` of the flattened rows. (n,) -> (n,)"""
        return self._computed(self.slot[places])

    def index_before(self, places: Tensor) -> Tensor:
        """Return which computed tokens predict those at `places` of the flattened rows. (n,) -> (n,)"""
        slots = self.slot[places]
        if bool((slots < 0).any()) or bool((self.positions[slots] == 0).any()):
            raise ValueError("a token to be predicted is a pad, or the first of its text")
        return self._computed(slots - 1)

    def _computed(self, slots: Tensor) -> Tensor:
        return slots if self.source_index is None else self.source_index[slots]


def unpad(mask: Tensor, positions: Tensor, tokens: Tensor | None = None) -> Unpadded:
    """Take the real tokens out of their rows; a text begins where positions are 0.

    mask, positions (B, T). tokens (B, T): if given, prefixes that texts share are computed once.
    """
    index = mask.flatten().nonzero().squeeze(1)
    if len(index) == 0:
        # One pad stands for an empty batch: under sharding every process must call the network.
        index = index.new_zeros(1)
    places = positions.flatten()[index]
    starts = places == 0
    starts[0] = True
    text = starts.cumsum(0) - 1
    sizes = text.bincount()
    # Texts of equal length become neighbours, so that attention treats them as one batch.
    order = sizes[text].sort(stable=True).indices
    sources = None if tokens is None else _shared_prefixes(tokens.flatten()[index], text, sizes)
    index = index[order]
    slot = torch.full((mask.numel(),), -1, device=mask.device)
    slot[index] = torch.arange(len(index), device=mask.device)
    sizes = sizes.sort().values
    unpadded = Unpadded(
        index=index,
        slot=slot,
        positions=places[order],
        lengths=tuple(sizes.tolist()),
        cu_seqlens=torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int(),
    )
    return unpadded if sources is None else _share_prefixes(unpadded, order, sources)


def _shared_prefixes(ids: Tensor, text: Tensor, sizes: Tensor) -> Tensor:
    """Return for every token the first one with its prefix in a run of consecutive texts. (M,) -> (M,)"""
    number = torch.arange(len(ids), device=ids.device)
    first = sizes.cumsum(0) - sizes
    rank = number - first[text]
    table = ids.new_full((len(sizes), int(sizes.max())), -1)
    table[text, rank] = ids
    # alike[i, r]: text i equals text i - 1 up to and including token r (the product of all equalities).
    alike = (table[1:] == table[:-1]) & (table[1:] >= 0)
    alike = torch.nn.functional.pad(alike.cumprod(1).bool(), (0, 0, 1, 0))
    row = torch.arange(len(sizes), device=ids.device)[:, None]
    # The last text up to i that differs from the one before it at r is the first of the run that shares r.
    owner = row.where(~alike, 0).cummax(0).values
    return first[owner[text, rank]] + rank


def _share_prefixes(unpadded: Unpadded, order: Tensor, sources: Tensor) -> Unpadded:
    """Return `unpadded` with each shared prefix computed once, if that saves enough tokens."""
    number = torch.arange(len(order), device=order.device)
    place = torch.empty_like(order).index_copy_(0, order, number)
    source = place[sources[order]]
    # A token that is its own source is computed.
    computed = (source == number).nonzero().squeeze(1)
    if len(computed) > (1 - MIN_SHARED) * len(order):
        return unpadded
    rank = torch.empty_like(order).index_copy_(0, computed, number[: len(computed)])
    return replace(unpadded, computed_index=computed, source_index=rank[source])

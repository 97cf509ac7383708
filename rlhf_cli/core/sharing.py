"""How work on a list is divided among processes; no process needs to ask another."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Share:
    """Part `rank` of `size` equal parts: every size-th item from `rank` on."""

    rank: int
    size: int

    def of(self, items: Sequence) -> Sequence:
        """This part's items, of a list or of a tensor's rows."""
        return items[self.rank :: self.size]

    def padded_shard(self, items: Sequence) -> list[tuple]:
        """(item, counts) pairs, as many in every part: fillers, with counts False, are repeats.

        For work in which all processes must take part equally often, as under ZeRO-3.
        """
        rounds = -(-len(items) // self.size)
        places = [turn * self.size + self.rank for turn in range(rounds)]
        return [(items[min(i, len(items) - 1)], i < len(items)) for i in places]


WHOLE = Share(0, 1)

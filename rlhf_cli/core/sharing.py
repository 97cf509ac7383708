"""Division of work on a list among processes, without communication."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Share:
    """Part `rank` of `size` equal parts: every size-th item from `rank` on."""

    rank: int
    size: int

    def of(self, items: Sequence) -> Sequence:
        """Return this part's items, of a list or of a tensor's rows."""
        return items[self.rank :: self.size]

    def padded_shard(self, items: Sequence) -> list[tuple]:
        """Return (item, counts) pairs, equally many in every part: padding repeats an item, counts False.

        Needed where all processes must work equally often, as under ZeRO-3.
        """
        rounds = -(-len(items) // self.size)
        indices = [i * self.size + self.rank for i in range(rounds)]
        return [(items[min(i, len(items) - 1)], i < len(items)) for i in indices]


WHOLE = Share(0, 1)

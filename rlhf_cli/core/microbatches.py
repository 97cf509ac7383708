"""Which rows of a step go through the network together, and on which process.

Every process has as many microbatches as any other, because sharded networks must all be called equally
often. The whole plan follows from the rows' lengths, so each process makes it alike, asking nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple


@dataclass(slots=True, frozen=True, kw_only=True)
class BatchLimit:
    """What one forward pass on one device holds at most; None: as much as there is.

    padded: the network reads padding, which therefore counts; else real tokens alone do.
    """

    rows: int | None
    tokens: int | None
    padded: bool = False


class BatchCost(NamedTuple):
    """Rows that are read together. tokens: real ones. widths: of each block of columns padded by itself."""

    rows: int
    tokens: int
    widths: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "BatchCost":
        """Rows of so many tokens, padded on one side."""
        return cls(len(lengths), sum(lengths), (max(lengths),))

    def plus(self, other: "BatchCost") -> "BatchCost":
        widths = tuple(map(max, self.widths, other.widths))
        return BatchCost(self.rows + other.rows, self.tokens + other.tokens, widths)

    def read(self, padded: bool) -> int:
        """The tokens that the network reads."""
        return self.rows * sum(self.widths) if padded else self.tokens

    def within(self, limit: BatchLimit) -> bool:
        return (limit.rows is None or self.rows <= limit.rows) and (
            limit.tokens is None or self.read(limit.padded) <= limit.tokens
        )


def divide(
    items: Sequence[BatchCost], limit: BatchLimit, num_processes: int
) -> list[list[list[int]]]:
    """For every process its microbatches, as indices of `items`; blank ones fill up at its end.

    items: rows that stay together, a text or all completions of a prompt . Where rows alone are
    limited, every process takes every num_processes-th item and cuts. Where tokens are: as few
    microbatches as will do, made even, the fullest first, so that the others fit where it was.
    """
    if limit.tokens is not None:
        return assign(balanced(items, limit, num_processes), items, limit, num_processes)
    order = range(len(items))
    shares = [cut(items, order[rank::num_processes], limit) for rank in range(num_processes)]
    most = max(map(len, shares))
    return [share + [[]] * (most - len(share)) for share in shares]


def cut(items: Sequence[BatchCost], order: Sequence[int], limit: BatchLimit) -> list[list[int]]:
    """In the given order, each part as long as the limit allows."""
    parts: list[list[int]] = []
    load = None
    for i in order:
        grown = load and load.plus(items[i])
        if grown is None or not grown.within(limit):
            parts.append([])
            grown = items[i]
        parts[-1].append(i)
        load = grown
    return parts


def first_fit(items: Sequence[BatchCost], limit: BatchLimit) -> list[list[int]]:
    """Longest first into the first part with room; an item that exceeds the limit is alone."""
    sizes = [sum(item.widths) if limit.padded else item.tokens for item in items]
    parts: list[list[int]] = []
    loads: list[BatchCost] = []
    for i in sorted(range(len(items)), key=lambda i: -sizes[i]):
        for place, load in enumerate(loads):
            grown = load.plus(items[i])
            if grown.within(limit):
                loads[place] = grown
                parts[place].append(i)
                break
        else:
            loads.append(items[i])
            parts.append([i])
    return parts


def balanced(items: Sequence[BatchCost], limit: BatchLimit, num_processes: int) -> list[list[int]]:
    """As few parts as first fit needs, then of the smallest budget for which it needs no more.

    That budget is found by bisection from the mean up (MULTIFIT: Coffman, Garey and Johnson 1978).
    Parts are counted in whole rounds of the processes; where items suffice, no part is blank.
    """
    parts = first_fit(items, limit)
    most = -(-len(parts) // num_processes) * num_processes
    low, high = sum(item.tokens for item in items) // most - 1, limit.tokens
    while high - low > 1:
        middle = (low + high) // 2
        found = first_fit(items, replace(limit, tokens=middle))
        if len(found) <= most:
            parts, high = found, middle
        else:
            low = middle
    while len(parts) < min(most, len(items)):
        longest = parts.pop(parts.index(max(parts, key=len)))
        parts += [longest[::2], longest[1::2]]
    return parts + [[]] * (most - len(parts))


def assign(
    parts: list[list[int]], items: Sequence[BatchCost], limit: BatchLimit, num_processes: int
) -> list[list[list[int]]]:
    """The fullest round first, there and back, so that all processes have about as much."""

    def read(part: list[int]) -> int:
        return reduce(BatchCost.plus, (items[i] for i in part)).read(limit.padded) if part else 0

    parts = sorted(parts, key=read, reverse=True)
    rounds = [parts[i : i + num_processes] for i in range(0, len(parts), num_processes)]
    turned = [one[::-1] if turn % 2 else one for turn, one in enumerate(rounds)]
    return [[one[rank] for one in turned] for rank in range(num_processes)]


def first_fit_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices in rows of at most `capacity` tokens; a text longer than that has a row of its own."""
    texts = [BatchCost.of([length]) for length in lengths]
    return first_fit(texts, BatchLimit(rows=None, tokens=capacity))

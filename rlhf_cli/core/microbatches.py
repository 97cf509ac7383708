"""Division of a step's rows into microbatches, and of the microbatches among processes.

Every process has as many microbatches as any other, because sharded networks must be called equally often.
The plan depends on the rows' lengths alone, so each process computes the same one without communication.
`Share` is the part of a process where rows are divided without regard to their length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple


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


@dataclass(slots=True, frozen=True, kw_only=True)
class BatchLimit:
    """The most rows and tokens of one forward pass on one device; None: no limit.

    padded: the network reads padding, which therefore counts; else only real tokens do.
    """

    rows: int | None
    tokens: int | None
    padded: bool = False


class BatchCost(NamedTuple):
    """The cost of reading rows together.

    tokens: real ones. widths: of each block of columns that is padded separately (prompts, responses).
    """

    rows: int
    tokens: int
    widths: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "BatchCost":
        """Return the cost of rows of these lengths, padded on one side."""
        return cls(len(lengths), sum(lengths), (max(lengths),))

    def plus(self, other: "BatchCost") -> "BatchCost":
        """Return the cost of both read together: each block is as wide as the wider one."""
        widths = tuple(map(max, self.widths, other.widths))
        return BatchCost(self.rows + other.rows, self.tokens + other.tokens, widths)

    def num_read(self, padded: bool) -> int:
        """Return how many tokens the network reads, pads included if `padded`."""
        return self.rows * sum(self.widths) if padded else self.tokens

    def within(self, limit: BatchLimit) -> bool:
        """Return whether one forward pass can hold it."""
        return (limit.rows is None or self.rows <= limit.rows) and (
            limit.tokens is None or self.num_read(limit.padded) <= limit.tokens
        )


def divide(
    items: Sequence[BatchCost], limit: BatchLimit, num_processes: int
) -> list[list[list[int]]]:
    """Return the microbatches of every process, as indices of `items`; empty ones fill up its end.

    items: costs of rows that stay together, a text or all responses to a prompt. If only rows are
    limited, every process takes every num_processes-th item and cuts. If tokens are, there are as few
    microbatches as possible, evenly filled. The fullest comes first: the others fit the memory it took.
    """
    if limit.tokens is not None:
        return assign(balanced(items, limit, num_processes), items, limit, num_processes)
    order = range(len(items))
    shares = [cut(items, order[rank::num_processes], limit) for rank in range(num_processes)]
    most = max(map(len, shares))
    return [share + [[]] * (most - len(share)) for share in shares]


def cut(items: Sequence[BatchCost], order: Sequence[int], limit: BatchLimit) -> list[list[int]]:
    """Cut the items in the given order into parts, each as large as the limit allows."""
    parts: list[list[int]] = []
    cost = None
    for i in order:
        grown = cost and cost.plus(items[i])
        if grown is None or not grown.within(limit):
            parts.append([])
            grown = items[i]
        parts[-1].append(i)
        cost = grown
    return parts


def first_fit(items: Sequence[BatchCost], limit: BatchLimit) -> list[list[int]]:
    """Put each item, longest first, into the first part with room; one over the limit is alone."""
    sizes = [sum(item.widths) if limit.padded else item.tokens for item in items]
    parts: list[list[int]] = []
    costs: list[BatchCost] = []
    for i in sorted(range(len(items)), key=lambda i: -sizes[i]):
        for place, cost in enumerate(costs):
            grown = cost.plus(items[i])
            if grown.within(limit):
                costs[place] = grown
                parts[place].append(i)
                break
        else:
            costs.append(items[i])
            parts.append([i])
    return parts


def balanced(items: Sequence[BatchCost], limit: BatchLimit, num_processes: int) -> list[list[int]]:
    """Return as few parts as first fit needs, of the smallest budget for which it needs no more.

    That budget is found by bisection from the mean up (MULTIFIT: Coffman, Garey and Johnson 1978).
    The number of parts is a multiple of the processes; no part is empty if there are enough items.
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
    """Assign parts to processes, the fullest round first and every second round in reverse order.

    So all processes get about as many tokens.
    """

    def num_read(part: list[int]) -> int:
        cost = reduce(BatchCost.plus, (items[i] for i in part)) if part else None
        return cost.num_read(limit.padded) if cost else 0

    parts = sorted(parts, key=num_read, reverse=True)
    rounds = [parts[i : i + num_processes] for i in range(0, len(parts), num_processes)]
    rounds = [parts[::-1] if i % 2 else parts for i, parts in enumerate(rounds)]
    return [[parts[rank] for parts in rounds] for rank in range(num_processes)]


def first_fit_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return indices of texts in rows of at most `capacity` tokens; a longer text has its own row."""
    texts = [BatchCost.of([length]) for length in lengths]
    return first_fit(texts, BatchLimit(rows=None, tokens=capacity))

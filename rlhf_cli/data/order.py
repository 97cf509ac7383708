"""In which order examples come: functions of the seed and the epoch alone."""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

Step = TypeVar("Step")

WINDOW = 32  # global batches whose rows are sorted by length together


def shuffled(num: int, *, seed: int, epoch: int) -> list[int]:
    """Return a permutation of range(num), another one in each epoch."""
    order = list(range(num))
    Random(f"{seed}/{epoch}").shuffle(order)
    return order


def chunks(num: int, size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Return indices in global batches of `size` in random order; the last may be smaller."""
    order = shuffled(num, seed=seed, epoch=epoch)
    return [order[i : i + size] for i in range(0, num, size)]


def grouped(lengths: list[int], size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Return indices in batches of `size`, rows of like length together, batches in random order.

    Only the last batch drawn may be smaller; it holds what is left over, of any length.
    """
    order = shuffled(len(lengths), seed=seed, epoch=epoch)
    whole = len(order) - len(order) % size
    batches = []
    for start in range(0, whole, size * WINDOW):
        window = sorted(order[start : min(whole, start + size * WINDOW)], key=lengths.__getitem__)
        batches += [window[i : i + size] for i in range(0, len(window), size)]
    Random(f"{seed}/{epoch}/batches").shuffle(batches)
    return batches + ([order[whole:]] if whole < len(order) else [])


def num_batches(num: int, size: int) -> int:
    """Return how many batches of `size` hold `num` examples; the last may be smaller."""
    return -(-num // size)


def num_steps(num: int, size: int, *, epochs: int, max_steps: int | None) -> int:
    """Return how many batches of `size` all epochs of `num` examples have, at most `max_steps`."""
    steps = num_batches(num, size) * epochs
    return steps if max_steps is None else min(steps, max_steps)


def steps_after(
    done: int, *, per_epoch: int, total: int, steps_of: Callable[[int], Sequence[Step]]
) -> Iterator[tuple[int, Step]]:
    """Yield (number from 1, step) of every step after the first `done`, up to the last of `total`.

    steps_of(epoch) is asked when the first of an epoch's steps is due; steps before `done` are not made.
    """
    for epoch in range(done // per_epoch, num_batches(total, per_epoch)):
        first = epoch * per_epoch
        steps = steps_of(epoch)
        for place in range(max(0, done - first), min(len(steps), total - first)):
            yield first + place + 1, steps[place]


def prompt_order(num: int, *, seed: int) -> Iterator[int]:
    """Yield indices without end: every prompt once before any comes again."""
    epoch = 0
    while num:
        yield from shuffled(num, seed=seed, epoch=epoch)
        epoch += 1

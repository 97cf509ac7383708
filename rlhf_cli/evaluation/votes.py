"""Self-consistency: the answer that most of several sampled chains of thought give."""

from collections import Counter
from collections.abc import Sequence


def plurality(answers: Sequence[str | None]) -> str | None:
    """Return the most frequent answer, of equally frequent ones the first seen.

    Unreadable answers (None) do not vote; None where none is readable.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=counts.__getitem__, default=None)


def block_votes(answers: Sequence[str | None]) -> dict[int, list[str | None]]:
    """Return {n: the votes of consecutive blocks of n answers} for every n that divides their number.

    The blocks are disjoint, so the mean over them estimates the accuracy of n votes without bias.
    """
    total = len(answers)
    sizes = [n for n in range(1, total + 1) if total % n == 0]
    return {
        n: [plurality(answers[start : start + n]) for start in range(0, total, n)] for n in sizes
    }

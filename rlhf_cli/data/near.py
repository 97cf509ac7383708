"""Texts that are nearly the same, found in time linear in their number: MinHash over words.

A text is the set of its runs of three words; two are near when their Jaccard similarity reaches
THRESHOLD. Candidates share one of 14 bands of 5 minimal hashes (Broder 1997; Leskovec, Rajaraman
and Ullman, Mining of Massive Datasets, 3.4), which finds 99 % of the pairs at the threshold and
more above it. Each candidate is then compared exactly, so nothing unlike is called near.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

THRESHOLD = 0.8
WORDS = 3  # in a run
BANDS, ROWS = 14, 5
LONGEST = 100_000  # characters of a text that are looked at
APART = bytes(  # letters small, signs between words; whatever is not ASCII belongs to a word
    ord(chr(c).lower()) if c > 127 or chr(c).isalnum() else ord(" ") for c in range(128)
) + bytes(range(128, 256))


def _odd(seed: int, *shape: int) -> np.ndarray:
    """Return random odd factors: multiplication by one permutes the numbers below 2**64."""
    drawn = np.random.default_rng(seed).integers(1, 2**63, size=shape, dtype=np.uint64)
    return drawn | np.uint64(1)


FACTORS = _odd(0, BANDS * ROWS, 1)
SHIFTS = _odd(1, BANDS * ROWS, 1)
IN_RUN = _odd(2, WORDS)
IN_BAND = _odd(3, ROWS)


def runs(text: str) -> np.ndarray:
    """Return the hashes of the text's runs of words; of all its words together where they are fewer."""
    data = text[:LONGEST].encode("utf-8", "replace")
    words = data.translate(APART).split() or [data]
    hashes = np.fromiter(map(zlib.crc32, words), np.uint64, len(words))
    length = min(WORDS, len(words))
    num = len(words) - length + 1
    mixed = sum(hashes[i : i + num] * IN_RUN[i] for i in range(length))  # wraps at 2**64
    return mixed ^ (mixed >> np.uint64(29))


def similarity(first: str, second: str) -> float:
    """Compute the Jaccard similarity of the runs of words of two texts."""
    a, b = np.unique(runs(first)), np.unique(runs(second))
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def bands(num: int, texts: Iterable[str]) -> np.ndarray:
    """Return (number of texts, BANDS): texts that agree in a column are candidates."""
    found = np.empty((num, BANDS), np.uint64)
    for index, text in enumerate(texts):
        found[index] = _bands(runs(text))
    return found


def _bands(hashes: np.ndarray) -> np.ndarray:
    minima = (hashes * FACTORS + SHIFTS).min(axis=1) >> np.uint64(17)
    return (minima.reshape(BANDS, ROWS) * IN_BAND).sum(axis=1, dtype=np.uint64)


def candidates(columns: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (a text, an earlier one that it may be near to), in order: per column the first that agrees
    and the last before it, so that there are never more than 2 * BANDS for a text.
    """
    num, found = len(columns), [np.zeros(0, np.int64)]
    for column in columns.T:
        order = np.argsort(column, kind="stable")
        starts = np.r_[True, column[order][1:] != column[order][:-1]][:num]
        first = order[np.maximum.accumulate(np.where(starts, np.arange(num), 0))]
        later = np.flatnonzero(~starts)
        found += [order[later] * num + first[later], order[later] * num + order[later - 1]]
    for pair in np.unique(np.concatenate(found)):
        yield divmod(int(pair), num)


def near_pairs(
    num: int,
    parts: Callable[[int], tuple[str, ...]],
    alike: Callable[[int, int], bool] = lambda index, other: True,
) -> Iterator[tuple[int, int]]:
    """Yield (a text, the first one found that is near to it and before it), at most one for each.

    parts: of a text, by its number; each of them is near . alike: whether a pair counts at all.
    """
    done = -1
    for index, other in candidates(bands(num, (" ".join(parts(index)) for index in range(num)))):
        if index != done and alike(index, other) and _near(parts(index), parts(other)):
            yield index, other
            done = index


def _near(parts: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return all(similarity(a, b) >= THRESHOLD for a, b in zip(parts, others, strict=True))

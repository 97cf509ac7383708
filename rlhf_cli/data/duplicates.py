"""Rows that repeat others, or nearly so, within a source, between sources, and between the sides.

Near copies are found in time linear in the number of texts: MinHash over words. A text is the set of
its runs of three words; two are near when their Jaccard similarity reaches THRESHOLD.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rlhf_cli.data.record_files import Records
from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin, Record
from rlhf_cli.data.split import normalised, opening

CONTRARY = "the same responses as in an earlier row, ranked the other way round"
# A question of a later side is compared with those of the earlier ones.
SIDES = ("trained on", "selected by", "held out")
THRESHOLD = 0.8
WORDS = 3  # in a run
# Two texts are compared where one of BANDS hashes, each of ROWS minima, is the same in both.
BANDS, ROWS = 14, 5
LONGEST = 100_000  # characters of a text that are read
# Bytes as they are compared: letters in lower case, signs as spaces, all but ASCII as it is.
APART = bytes(
    ord(chr(c).lower()) if c > 127 or chr(c).isalnum() else ord(" ") for c in range(128)
) + bytes(range(128, 256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A record, in what it is like an earlier one, and which one that is."""

    role: str
    origin: Origin
    what: str
    detail: str


def twins(role: str, records: Records) -> Iterator[Twin]:
    """Yield the records of a role that are like one before: all of it, or nearly."""
    rows, record = np.concatenate(records.sides), records.table.record
    _, first_of_unit = np.unique(records.table.units[rows], return_index=True)
    rows = rows[np.sort(first_of_unit)]  # the renderings of later epochs repeat rows on purpose
    identities = np.fromiter(map(_identity, records.each(rows)), np.uint64, len(rows))
    _, first, which = np.unique(identities, return_index=True, return_inverse=True)
    for index in np.flatnonzero(first[which] != np.arange(len(rows))):
        later, earlier = record(int(rows[index])), record(int(rows[first[which[index]]]))
        yield _twin(role, later, earlier, "a copy")
        if contrary(later, earlier):
            yield Twin(role=role, origin=later.origin, what=CONTRARY, detail=str(earlier.origin))
    single = rows[np.sort(first)].tolist()
    for index, other in near_pairs(len(single), lambda i: parts(record(single[i]))):
        yield _twin(role, record(single[index]), record(single[other]), "nearly a copy")


def twins_across(found: Mapping[str, Records]) -> Iterator[Twin]:
    """Yield the questions that are nearly those of another side, whatever their roles."""
    roles, tables = list(found), [records.table for records in found.values()]
    places = _questions(list(found.values()))

    def record(index: int) -> Record:
        _, role, row = places[index].tolist()
        return tables[role].record(row)

    pairs = near_pairs(
        len(places),
        lambda i: (opening(record(i)),),
        lambda i, j: places[i, 0] != places[j, 0],
    )
    for index, earlier in pairs:
        (side, role, _), (other, like, _) = places[index].tolist(), places[earlier].tolist()
        yield Twin(
            role=roles[role],
            origin=record(index).origin,
            what=f"a question {SIDES[side]} that is nearly one {SIDES[other]}",
            detail=f"{record(earlier).origin} (data.{roles[like]})",
        )


def _questions(found: list[Records]) -> np.ndarray:
    """Return (questions, 3): each one's side, the latest it is on, and the first (role, row) there."""
    asked, places = [np.zeros(0, np.uint64)], [np.zeros((0, 3), np.int64)]
    for role, records in enumerate(found):
        numbers = records.table.whole("asked")
        for side, rows in enumerate(records.sides):
            asked.append(numbers[rows])
            places.append(np.stack([np.full_like(rows, side), np.full_like(rows, role), rows], 1))
    every = np.concatenate(places)
    _, met, which = np.unique(np.concatenate(asked), return_index=True, return_inverse=True)
    order = np.lexsort((np.arange(len(every)), -every[:, 0], which))
    latest = every[order[np.r_[True, np.diff(which[order]) != 0][: len(order)]]]
    return latest[np.lexsort((met, latest[:, 0]))]


def parts(record: Record) -> tuple[str, str]:
    """Return the text of the prompt and that of the responses."""
    if isinstance(record, Comparison):
        return _text(record.prompt), " ".join(sorted(record.responses))
    if isinstance(record, Demonstration):
        return _text(record.messages[:-1]), record.messages[-1].content
    return _text(record.messages), ""


def _text(messages: tuple[Message, ...]) -> str:
    return " ".join(message.content for message in messages)


def contrary(record: Record, earlier: Record) -> bool:
    """Return whether two comparisons rank the same two responses the other way round."""
    ranked, before = _ranked(record), _ranked(earlier)
    return any((loser, winner) in before for winner, loser in ranked)


def _ranked(record: Record) -> set[tuple[str, str]]:
    if not isinstance(record, Comparison):
        return set()
    normalised_texts = [normalised(text) for text in record.responses]
    return {(normalised_texts[winner], normalised_texts[loser]) for winner, loser in record.better}


def _identity(record: Record) -> int:
    text = "\0".join(map(normalised, parts(record)))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def _twin(role: str, record: Record, earlier: Record, how: str) -> Twin:
    same = record.origin.source == earlier.origin.source
    what = f"{how} of {'an earlier row' if same else 'a row of another file'}"
    return Twin(role=role, origin=record.origin, what=what, detail=str(earlier.origin))


def near_pairs(
    num: int,
    parts_of: Callable[[int], tuple[str, ...]],
    alike: Callable[[int, int], bool] = lambda index, other: True,
) -> Iterator[tuple[int, int]]:
    """Yield (a text, the first one found that is near to it and before it), at most one for each.

    parts_of: the parts of a text, by its number; each of them must be near . alike: whether a pair
    counts at all.
    """
    done = -1
    for index, other in candidates(bands(num, (" ".join(parts_of(index)) for index in range(num)))):
        if index != done and alike(index, other) and _near(parts_of(index), parts_of(other)):
            yield index, other
            done = index


def _near(parts: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return all(similarity(a, b) >= THRESHOLD for a, b in zip(parts, others, strict=True))


def similarity(first: str, second: str) -> float:
    """Compute the Jaccard similarity of the runs of words of two texts."""
    a, b = np.unique(runs(first)), np.unique(runs(second))
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


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


def bands(num: int, texts: Iterable[str]) -> np.ndarray:
    """Return (number of texts, BANDS): texts that agree in a column are candidates."""
    found = np.empty((num, BANDS), np.uint64)
    for index, text in enumerate(texts):
        found[index] = _bands(runs(text))
    return found


def _bands(hashes: np.ndarray) -> np.ndarray:
    minima = (hashes * FACTORS + SHIFTS).min(axis=1) >> np.uint64(17)
    return (minima.reshape(BANDS, ROWS) * IN_BAND).sum(axis=1, dtype=np.uint64)


def runs(text: str) -> np.ndarray:
    """Return the hashes of the text's runs of words; of all its words together where they are fewer."""
    data = text[:LONGEST].encode("utf-8", "replace")
    words = data.translate(APART).split() or [data]
    hashes = np.fromiter(map(zlib.crc32, words), np.uint64, len(words))
    length = min(WORDS, len(words))
    num = len(words) - length + 1
    mixed = sum(hashes[i : i + num] * IN_RUN[i] for i in range(length))  # wraps at 2**64
    return mixed ^ (mixed >> np.uint64(29))


def _odd(seed: int, *shape: int) -> np.ndarray:
    """Return random odd factors: multiplication by one permutes the numbers below 2**64."""
    drawn = np.random.default_rng(seed).integers(1, 2**63, size=shape, dtype=np.uint64)
    return drawn | np.uint64(1)


FACTORS = _odd(0, BANDS * ROWS, 1)
SHIFTS = _odd(1, BANDS * ROWS, 1)
IN_RUN = _odd(2, WORDS)
IN_BAND = _odd(3, ROWS)

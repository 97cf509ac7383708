"""Annotations of responses -> which is better. Anything but a valid label is never a preference."""

import math
from itertools import combinations
from typing import Any

from rlhf_cli.data.formats.dialogue import kind
from rlhf_cli.data.records import RowError

Pairs = tuple[tuple[int, int], ...]
UNREAD = "a label that cannot be read"
JUDGEMENTS = {"true": True, "false": False, "1": True, "0": False}


def from_labels(pairs: Any, num: int) -> tuple[Pairs, Pairs]:
    """Return (better, ties) of triples (i, j, label): 0 a tie, 1 the first is better, 2 the second."""
    if not isinstance(pairs, list):
        raise RowError(UNREAD, f"pairs is {_short(pairs)}: expected [[i, j, label], ...]")
    better, ties, seen = [], [], set()
    for triple in pairs:
        first, second, label = _triple(triple, num)
        if frozenset((first, second)) in seen:
            raise RowError("a pair labelled twice", f"{first} and {second}")
        seen.add(frozenset((first, second)))
        if label == 0:
            ties.append((first, second))
        else:
            better.append((first, second) if label == 1 else (second, first))
    return tuple(better), tuple(ties)


def _triple(triple: Any, num: int) -> tuple[int, int, int]:
    ok = isinstance(triple, (list, tuple)) and len(triple) == 3
    ok = ok and all(type(x) is int for x in triple)
    if not ok or triple[0] == triple[1] or not all(0 <= i < num for i in triple[:2]):
        raise RowError(UNREAD, f"{_short(triple)} for {num} responses")
    if triple[2] not in (0, 1, 2):
        raise RowError(UNREAD, f"{triple[2]!r} is not 0, 1 or 2")
    return tuple(triple)


def from_scores(scores: Any, num: int) -> tuple[Pairs, Pairs]:
    """Return (better, ties): higher is better, equal is a tie."""
    return _ordered([-score for score in numbers(scores, num, "score")])


def from_ranks(ranks: Any, num: int) -> tuple[Pairs, Pairs]:
    """Return (better, ties): lower is better, equal is a tie."""
    return _ordered(numbers(ranks, num, "rank"))


def _ordered(ranks: list[float]) -> tuple[Pairs, Pairs]:
    pairs = list(combinations(range(len(ranks)), 2))
    better = [(i, j) if ranks[i] < ranks[j] else (j, i) for i, j in pairs if ranks[i] != ranks[j]]
    return tuple(better), tuple((i, j) for i, j in pairs if ranks[i] == ranks[j])


def numbers(values: Any, num: int, what: str) -> list[float]:
    """Return a finite number per response, read from text where need be; NaN means "not annotated"."""
    if not isinstance(values, list) or len(values) != num:
        raise RowError(UNREAD, f"{_short(values)} for {num} responses")
    return [_number(value, f"{what} {i}", what) for i, value in enumerate(values)]


def _number(value: Any, where: str, what: str) -> float:
    if value is None:
        raise RowError(f"null {what}", f"{where} is null")
    try:
        read = _parsed(value)
    except (TypeError, ValueError) as error:
        raise RowError(UNREAD, f"{where} is {_short(value)}") from error
    if isinstance(read, int) or math.isfinite(read):
        return read
    if math.isnan(read):
        raise RowError(f"null {what}", f"{where} is NaN, not annotated")
    raise RowError(UNREAD, f"{where} is not finite")


def _parsed(value: Any) -> float:
    """Return a number; integers stay exact: two large ones that differ must not become equal."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError(value)
    if isinstance(value, str):
        digits = value.strip().lstrip("+-")
        return int(value) if digits.isdecimal() else float(value)
    return value if isinstance(value, int) else float(value)


def index_of_better(index: Any, what: str) -> tuple[int, int]:
    """Return (winner, loser) of two, from the index of the better."""
    if index not in (0, 1):
        raise RowError(UNREAD, f"{what} is {_short(index)}, expected 0 or 1")
    return (int(index), 1 - int(index))


def judgement(label: Any) -> bool:
    """Return whether a response was judged good: true, 1 or their texts; bad: false, 0."""
    good = JUDGEMENTS.get(str(label).lower()) if isinstance(label, bool | int | str) else None
    if good is None:
        raise RowError(
            UNREAD,
            f"label is {_short(label)}: expected true (good) or false (bad); "
            "where label means something else, name the format of the source",
        )
    return good


def _short(value: Any) -> str:
    if isinstance(value, dict | list) and len(value) > 9:
        return kind(value)
    text = repr(value)
    return text if len(text) < 60 else kind(value)

"""Rows that repeat others, within a source, between sources, and between the sides."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rlhf_cli.data.near import near_pairs
from rlhf_cli.data.record_files import Records
from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin, Record
from rlhf_cli.data.split import normalised, opening

CONTRARY = "the same responses as in an earlier row, ranked the other way round"
SIDES = ("trained on", "selected by", "held out")  # an earlier one is what a later one is near to


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

"""Rows that say the same again, within a source, between sources, and between the sides."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlhf_cli.data.near import near_pairs
from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin, Record
from rlhf_cli.data.report import Loaded
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


def twins(role: str, loaded: Loaded) -> Iterator[Twin]:
    """Yield the records of a role that are like one before: all of it, or nearly."""
    records = [*loaded.train, *loaded.select, *loaded.eval]
    first: dict[bytes, Record] = {}
    for record in records:
        earlier = first.setdefault(_identity(record), record)
        if earlier is not record:
            yield _twin(role, record, earlier, "a copy")
            if contrary(record, earlier):
                yield Twin(
                    role=role, origin=record.origin, what=CONTRARY, detail=str(earlier.origin)
                )
    single = list(first.values())
    for index, earlier in near_pairs(len(single), lambda i: parts(single[i])):
        yield _twin(role, single[index], single[earlier], "nearly a copy")


def twins_across(found: Mapping[str, Loaded]) -> Iterator[Twin]:
    """Yield the questions that are nearly those of another side, whatever their roles."""
    places: dict[str, tuple[int, str, Origin]] = {}  # question -> side, role, origin
    for role, loaded in found.items():
        for side, records in enumerate((loaded.train, loaded.select, loaded.eval)):
            for record in records:
                text = opening(record)
                if side > places.get(text, (-1,))[0]:
                    places[text] = (side, role, record.origin)
    ordered = sorted(places.items(), key=lambda item: item[1][0])
    pairs = near_pairs(
        len(ordered),
        lambda i: (ordered[i][0],),
        lambda i, j: ordered[i][1][0] != ordered[j][1][0],
    )
    for index, earlier in pairs:
        (_, (side, role, origin)), (_, (other, place, like)) = ordered[index], ordered[earlier]
        what = f"a question {SIDES[side]} that is nearly one {SIDES[other]}"
        yield Twin(role=role, origin=origin, what=what, detail=f"{like} (data.{place})")


def parts(record: Record) -> tuple[str, str]:
    """What is asked, and what is said to it."""
    if isinstance(record, Comparison):
        return _said(record.prompt), " ".join(sorted(record.responses))
    if isinstance(record, Demonstration):
        return _said(record.messages[:-1]), record.messages[-1].content
    return _said(record.messages), ""


def _said(messages: tuple[Message, ...]) -> str:
    return " ".join(message.content for message in messages)


def contrary(record: Record, earlier: Record) -> bool:
    """Whether two comparisons rank the same two responses the other way round."""
    ranked, before = _ranked(record), _ranked(earlier)
    return any((loser, winner) in before for winner, loser in ranked)


def _ranked(record: Record) -> set[tuple[str, str]]:
    if not isinstance(record, Comparison):
        return set()
    said = [normalised(text) for text in record.responses]
    return {(said[winner], said[loser]) for winner, loser in record.better}


def _identity(record: Record) -> bytes:
    said = "\0".join(map(normalised, parts(record)))
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _twin(role: str, record: Record, earlier: Record, how: str) -> Twin:
    same = record.origin.source == earlier.origin.source
    what = f"{how} of {'an earlier row' if same else 'a row of another file'}"
    return Twin(role=role, origin=record.origin, what=what, detail=str(earlier.origin))

"""Training, selection and held-out sides. A side is a function of the opening question and the seed,
so that the same question is held out from every list of every stage, whatever file it came from.

    u = place(opening): [0, eval_fraction) held out | [.., + select_fraction) to select by | trained on
"""

import hashlib
import unicodedata

from rlhf_cli.data.records import Record, context_of

TOO_FEW = "too few opening questions for data.select_fraction: a single one is selected by"
SINGLE = "a single opening question: it is trained on, nothing is left to select by"


def opening(record: Record) -> str:
    """The normalised first user turn (or raw text): what decides a record's side.

    Not the whole prompt: a dialogue and its own first turn must not be parted.
    """
    messages = context_of(record)
    first = next((m.content for m in messages if m.role in ("user", "text")), "")
    return " ".join(unicodedata.normalize("NFKC", first).casefold().split())


def place(text: str, *, seed: int) -> float:
    """Return the opening's number in [0, 1), its hash, from which its side follows."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def held_out(text: str, *, eval_fraction: float, seed: int) -> bool:
    """Whether an opening is held out: its number falls below the fraction."""
    return place(text, seed=seed) < eval_fraction


def selection(
    openings: set[str], *, eval_fraction: float, select_fraction: float, seed: int
) -> tuple[set[str], str | None]:
    """Return which of these openings are selected by, and a note where the band does not say so.

    Where the band holds none of them or all, it is the one next above eval_fraction; a single
    opening is trained on.
    """
    places = {text: place(text, seed=seed) for text in openings}
    high = eval_fraction + select_fraction
    band = {text for text, u in places.items() if eval_fraction <= u < high}
    if 0 < len(band) < len(places) or not places:
        return band, None
    if len(places) == 1:
        return set(), SINGLE
    nearest = min(places, key=lambda text: (places[text] < eval_fraction, places[text]))
    return {nearest}, TOO_FEW


def split(records: list[Record], *, eval_fraction: float, seed: int) -> tuple[list, list]:
    """(train, held out). Records marked held_out by their maker are held out in any case."""
    sides: tuple[list, list] = ([], [])
    for record in records:
        out = bool(record.meta.get("held_out")) or held_out(
            opening(record), eval_fraction=eval_fraction, seed=seed
        )
        sides[out].append(record)
    return sides


def without(records: list[Record], openings: set[str]) -> tuple[list[Record], int]:
    """(records whose opening is not among these, how many were)."""
    kept = [record for record in records if opening(record) not in openings]
    return kept, len(records) - len(kept)


def leak_check(sides: dict[str, tuple[list, list]]) -> dict[tuple[str, str], int]:
    """{(role trained on, role evaluated on): held-out records whose opening was trained on}.

    sides {role: (train, held out)}. Every pair of roles counts, a role with itself too; no entry
    means no leak.
    """
    trained = {role: {opening(r) for r in train} for role, (train, _) in sides.items()}
    leaks = {}
    for role, openings in trained.items():
        for other, (_, evaluated) in sides.items():
            count = sum(opening(record) in openings for record in evaluated)
            if count:
                leaks[role, other] = count
    return leaks

"""Training and held-out sides. A side is a function of the opening question and the seed alone, so
a conversation lies on the same side in every list of every stage, whatever file it came from."""

import hashlib
import unicodedata

from rlhf_cli.data.records import Record, context_of


def opening(record: Record) -> str:
    """The normalised first user turn (or raw text): what decides a record's side.

    Not the whole prompt: a dialogue and its own first turn must not be parted.
    """
    messages = context_of(record)
    first = next((m.content for m in messages if m.role in ("user", "text")), "")
    return " ".join(unicodedata.normalize("NFKC", first).casefold().split())


def held_out(text: str, *, eval_fraction: float, seed: int) -> bool:
    """Whether an opening is held out: its hash, as a number in [0, 1), falls below the fraction."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < eval_fraction * 2**64


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

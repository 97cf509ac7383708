"""Training, selection and held-out sides. A side is a function of the opening question and the seed,
so that the same question is held out from every list of every stage, whatever file it came from.

    u = place(opening): [0, eval_fraction) held out | [.., + select_fraction) to select by | trained on

What a source marked eval asks is held out as well, in every role.
"""

import hashlib
import unicodedata
from dataclasses import dataclass

from rlhf_cli.data.records import Record, context_of

TOO_FEW = "too few opening questions for data.select_fraction: a single one is selected by"
NAMED = "its question is also in a source marked eval"
HASHED = "its question is held out in a role without a source marked eval"
SINGLE = "a single opening question: it is trained on, nothing is left to select by"


def opening(record: Record) -> str:
    """The normalised first user turn (or raw text): what decides a record's side.

    Not the whole prompt: a dialogue and its own first turn must not be parted.
    """
    messages = context_of(record)
    first = next((m.content for m in messages if m.role in ("user", "text")), "")
    return normalised(first)


def normalised(text: str) -> str:
    """The text without what makes no difference: case, spaces, compatible forms of letters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Which questions are held out: decided once, for all roles.

    named: openings of every source marked eval, whatever its role . by_hash: some role has no such
    source, so that eval_fraction of the openings is held out there and trained on nowhere
    """

    named: frozenset[str]
    by_hash: bool
    eval_fraction: float
    seed: int

    def reason(self, record: Record) -> str | None:
        """Why a record is not trained on; None where it is. Its maker may have marked it, too."""
        text = opening(record)
        if text in self.named:
            return NAMED
        hashed = self.by_hash and held_out(text, eval_fraction=self.eval_fraction, seed=self.seed)
        return HASHED if hashed or record.meta.get("held_out") else None

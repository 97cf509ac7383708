"""Training, selection and held-out sides. A side is a function of the opening question and the seed,
so that the same question is held out from every list of every stage, whatever file it came from.

    u = place(number): [0, eval_fraction) held out | [.., + select_fraction) to select by | trained on

A question is known by its number, a hash of 64 bits. What a source marked eval asks is held out as
well, in every role.
"""

import hashlib
import unicodedata
from dataclasses import dataclass

import numpy as np

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
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def number(text: str, *, seed: int) -> int:
    """Return the opening's number below 2**64, its hash."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def place(numbers: np.ndarray) -> np.ndarray:
    """Return where in [0, 1) openings lie, from which their sides follow."""
    return (numbers >> np.uint64(11)) / 2.0**53


def selection(
    asked: np.ndarray, *, eval_fraction: float, select_fraction: float
) -> tuple[np.ndarray, str | None]:
    """Return which of these openings are selected by, and a note where the band does not say so.

    Where the band holds none of them or all, it is the one next above eval_fraction; a single
    opening is trained on.
    """
    openings = np.unique(asked)
    places = place(openings)
    band = openings[(eval_fraction <= places) & (places < eval_fraction + select_fraction)]
    if 0 < len(band) < len(openings) or not len(openings):
        return band, None
    if len(openings) == 1:
        return openings[:0], SINGLE
    above = openings[places >= eval_fraction]
    return (above if len(above) else openings)[:1], TOO_FEW


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Which questions are held out: decided once, for all roles.

    named: openings of every source marked eval, whatever its role . by_hash: some role has no such
    source, so that eval_fraction of the openings is held out there and trained on nowhere
    """

    named: np.ndarray
    by_hash: bool
    eval_fraction: float

    def reasons(self, asked: np.ndarray, apart: np.ndarray) -> dict[str, np.ndarray]:
        """{why: which records are not trained on for that}. apart: what its maker has marked."""
        named = np.isin(asked, self.named)
        hashed = apart | (self.by_hash & (place(asked) < self.eval_fraction))
        return {NAMED: named, HASHED: hashed & ~named}

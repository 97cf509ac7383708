"""The sides of records (trained on, selected by, held out), and the mixture of sources.

A record's side is a function of the opening question and the seed, so that the same question is
held out from every list of every stage, whatever file it came from.

    u = place(number): [0, eval_fraction) held out | [.., + select_fraction) to select by | trained on

A question is known by its number, a hash of 64 bits. What a source marked eval asks is held out as
well, in every role.
"""

import hashlib
import unicodedata
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError, Record, context_of
from rlhf_cli.data.report import DataReport

TOO_FEW = "too few opening questions for data.select_fraction: a single one is selected by"
NAMED = "its question is also in a source marked eval"
HASHED = "its question is held out in a role without a source marked eval"
SINGLE = "a single opening question: it is trained on, nothing is left to select by"
Sides = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows trained on, selected by, held out


def opening(record: Record) -> str:
    """Return the normalised first user turn (or raw text), which decides a record's side.

    Not the whole prompt: a dialogue and its own first turn must not be parted. All renderings of a
    task's row have the question of the row.
    """
    if (question := record.meta.get("question")) is not None:
        return question
    messages = context_of(record)
    first = next((m.content for m in messages if m.role in ("user", "text")), "")
    return normalised(first)


def normalised(text: str) -> str:
    """Return the text without differences of case, spaces and compatible forms of letters."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def number(text: str, *, seed: int) -> int:
    """Return the opening's number below 2**64, its hash."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def place(numbers: np.ndarray) -> np.ndarray:
    """Return the number in [0, 1) of each opening, from which their sides follow."""
    return (numbers >> np.uint64(11)) / 2.0**53


def selection(
    asked: np.ndarray, *, eval_fraction: float, select_fraction: float
) -> tuple[np.ndarray, str | None]:
    """Return which of these openings are selected by, and a note where the band was not used.

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
        """Return {why: which records are not trained on for that}. apart: marked by their maker."""
        named = np.isin(asked, self.named)
        hashed = apart | (self.by_hash & (place(asked) < self.eval_fraction))
        return {NAMED: named, HASHED: hashed & ~named}


@dataclass(frozen=True, slots=True)
class Pool:
    """A source and the rows of its good records: what each asks, and whether it is set apart.

    units: equal for rows of which an epoch has one.
    """

    source: Source
    rows: np.ndarray
    asked: np.ndarray
    apart: np.ndarray
    units: np.ndarray

    def only(self, which: np.ndarray) -> "Pool":
        """Return the pool with these of its records alone."""
        names = ("rows", "asked", "apart", "units")
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    @property
    def num(self) -> int:
        """Return how many examples it has per epoch."""
        return len(np.unique(self.units))

    def drawn(self, places: list[int]) -> np.ndarray:
        """Return the rows of some of its examples."""
        if self.num == len(self.rows):
            return self.rows[places]
        return self.rows[np.isin(self.units, np.unique(self.units)[places])]


def sides(
    pools: list[Pool], out: HeldOut, *, select_fraction: float, seed: int, report: DataReport
) -> Sides:
    """Return (train, select, held out). Held out is what sources marked eval hold; where the role has
    none of them, what `out` decides for each question.

    select_fraction: 0 for roles that select nothing.
    """
    trained, held = apart(pools, out, report)
    trained, select = chosen(trained, out, select_fraction, report)
    train = mixed(trained, seed=seed, report=report)
    for side, rows in (("to train on", train), ("to hold out", held)):
        if (len(train) or len(held)) and not len(rows):
            num = len(train) + len(select) + len(held)
            report.problems.append(_lacking(side, num, out.eval_fraction, report))
    return train, select, held


def text_sides(pools: list[Pool], out: HeldOut, *, seed: int, report: DataReport) -> Sides:
    """Return the sides of raw texts: only sources marked eval are held out, none is selected by."""
    out = replace(out, by_hash=False)
    trained, held = apart(pools, out, report)
    return mixed(trained, seed=seed, report=report), _rows([]), held


def _rows(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def apart(pools: list[Pool], out: HeldOut, report: DataReport) -> tuple[list[Pool], np.ndarray]:
    """Return (the pools to train on, the rows held out).

    Beside sources marked eval other records of a held-out question are left out, and counted: what
    is reported on is what those sources hold, no more.
    """
    marked = any(pool.source.eval for pool in pools)
    held = [pool.rows for pool in pools if pool.source.eval]
    trained = []
    for pool in (pool for pool in pools if not pool.source.eval):
        reasons = out.reasons(pool.asked, pool.apart)
        held_out = np.logical_or.reduce(list(reasons.values()))
        trained.append(pool.only(~held_out))
        if not marked:
            held.append(pool.rows[held_out])
            continue
        for reason, which in reasons.items():
            if which.any():
                report.leave_out(reason, int(which.sum()))
    return trained, _rows(held)


def chosen(
    pools: list[Pool], out: HeldOut, select_fraction: float, report: DataReport
) -> tuple[list[Pool], np.ndarray]:
    """Return (the pools without the records that are selected by, the rows of those)."""
    if not select_fraction:
        return pools, _rows([])
    openings, note = selection(
        np.concatenate([np.zeros(0, dtype=np.uint64), *(pool.asked for pool in pools)]),
        eval_fraction=out.eval_fraction,
        select_fraction=select_fraction,
    )
    report.notes.update([note] if note else [])
    selected = [np.isin(pool.asked, openings) for pool in pools]
    pairs = list(zip(pools, selected, strict=True))
    return [p.only(~which) for p, which in pairs], _rows([p.rows[which] for p, which in pairs])


def _lacking(side: str, num: int, eval_fraction: float, report: DataReport) -> str:
    return (
        f"data.{report.role}: of {num} records none is left {side} (data.eval_fraction="
        f"{eval_fraction:g} splits by the opening question); change data.eval_fraction, "
        "add rows, or mark a source of other questions eval: true"
    )


def mixed(pools: list[Pool], *, seed: int, report: DataReport) -> np.ndarray:
    """Return all rows, or the largest mixture in which each source has its share, drawn by the seed."""
    weights = [pool.source.weight for pool in pools]
    if all(weight is None for weight in weights):
        return _rows([pool.rows for pool in pools])
    if any(weight is None for weight in weights):
        lacking = [pool.source.path for pool in pools if pool.source.weight is None]
        raise DataError(
            f"data.{report.role}: give every source that is trained on a weight, or none; "
            f"these have none: {', '.join(lacking)}"
        )
    shares = [weight / sum(weights) for weight in weights]
    total = min(pool.num / share for pool, share in zip(pools, shares, strict=True))
    drawn = []
    for position, (pool, share) in enumerate(zip(pools, shares, strict=True)):
        num = pool.num
        count = min(num, round(total * share))
        places = Random(f"{seed}/{report.role}/{position}").sample(range(num), count)
        drawn.append(pool.drawn(places))
        if (lost := len(pool.rows) - len(drawn[-1])) > 0:
            report.leave_out(f"left out to keep the weight of {pool.source.path}", lost)
    return _rows(drawn)

"""Which records are trained on, selected by or held out, and in what shares sources are mixed.

Records are known by their rows; nothing is read of them but the numbers of what they ask.
"""

from dataclasses import dataclass, replace
from random import Random

import numpy as np

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError
from rlhf_cli.data.report import Report
from rlhf_cli.data.split import HeldOut, selection

Sides = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows trained on, selected by, held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A source and the rows of its good records: what each asks, and whether it is set apart."""

    source: Source
    rows: np.ndarray
    asked: np.ndarray
    apart: np.ndarray

    def only(self, which: np.ndarray) -> "Pool":
        """The pool with these of its records alone."""
        return replace(
            self, rows=self.rows[which], asked=self.asked[which], apart=self.apart[which]
        )


def sides(
    pools: list[Pool], out: HeldOut, *, select_fraction: float, seed: int, report: Report
) -> Sides:
    """Return (train, select, held out). Held out is what sources marked eval hold; where the role has
    none of them, what `out` says of each question.

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


def text_sides(pools: list[Pool], out: HeldOut, *, seed: int, report: Report) -> Sides:
    """The same of raw texts: only sources marked eval hold any out, and none is selected by."""
    out = replace(out, by_hash=False)
    trained, held = apart(pools, out, report)
    return mixed(trained, seed=seed, report=report), _rows([]), held


def _rows(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def apart(pools: list[Pool], out: HeldOut, report: Report) -> tuple[list[Pool], np.ndarray]:
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
    pools: list[Pool], out: HeldOut, select_fraction: float, report: Report
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


def _lacking(side: str, num: int, eval_fraction: float, report: Report) -> str:
    return (
        f"data.{report.role}: of {num} records none is left {side} (data.eval_fraction="
        f"{eval_fraction:g} splits by the opening question); change data.eval_fraction, "
        "add rows, or mark a source of other questions eval: true"
    )


def mixed(pools: list[Pool], *, seed: int, report: Report) -> np.ndarray:
    """All rows, or the largest mixture in which each source has its share, drawn by the seed."""
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
    total = min(len(pool.rows) / share for pool, share in zip(pools, shares, strict=True))
    drawn = []
    for position, (pool, share) in enumerate(zip(pools, shares, strict=True)):
        num = len(pool.rows)
        count = min(num, round(total * share))
        places = Random(f"{seed}/{report.role}/{position}").sample(range(num), count)
        drawn.append(pool.rows[places])
        if count < num:
            report.leave_out(f"left out to keep the weight of {pool.source.path}", num - count)
    return _rows(drawn)

"""Which records are trained on, selected by or held out, and in what shares sources are mixed."""

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError, Record
from rlhf_cli.data.report import Report
from rlhf_cli.data.split import HeldOut, opening, selection


@dataclass(slots=True, kw_only=True)
class Pool:
    """A source and its good records."""

    source: Source
    records: list[Record]


def sides(
    pools: list[Pool], out: HeldOut, *, select_fraction: float, report: Report
) -> tuple[list, list, list]:
    """Return (train, select, held out). Held out is what sources marked eval hold; where the role has
    none of them, what `out` says of each question.

    select_fraction: 0 for roles that select nothing.
    """
    trained, held = apart(pools, out, report)
    trained, select = chosen(trained, out, select_fraction, report)
    train = mixed(trained, seed=out.seed, report=report)
    for side, records in (("to train on", train), ("to hold out", held)):
        if (train or held) and not records:
            num = len(train + select + held)
            report.problems.append(_lacking(side, num, out.eval_fraction, report))
    return train, select, held


def text_sides(pools: list[Pool], out: HeldOut, report: Report) -> tuple[list, list, list]:
    """The same of raw texts: only sources marked eval hold any out, and none is selected by."""
    out = replace(out, by_hash=False)
    trained, held = apart(pools, out, report)
    return mixed(trained, seed=out.seed, report=report), [], held


def apart(pools: list[Pool], out: HeldOut, report: Report) -> tuple[list[Pool], list[Record]]:
    """Return (the pools to train on, the records held out).

    Beside sources marked eval other records of a held-out question are left out, and counted: what
    is reported on is what those sources hold, no more.
    """
    marked = any(pool.source.eval for pool in pools)
    held = [record for pool in pools if pool.source.eval for record in pool.records]
    trained = []
    for pool in (pool for pool in pools if not pool.source.eval):
        reasons = [out.reason(record) for record in pool.records]
        pairs = list(zip(pool.records, reasons, strict=True))
        trained.append(Pool(source=pool.source, records=[r for r, reason in pairs if not reason]))
        if not marked:
            held += [record for record, reason in pairs if reason]
        for reason, num in Counter(filter(None, reasons if marked else ())).items():
            report.leave_out(reason, num)
    return trained, held


def chosen(
    pools: list[Pool], out: HeldOut, select_fraction: float, report: Report
) -> tuple[list[Pool], list[Record]]:
    """Return (the pools without the records that are selected by, those records)."""
    if not select_fraction:
        return pools, []
    openings, note = selection(
        {opening(record) for pool in pools for record in pool.records},
        eval_fraction=out.eval_fraction,
        select_fraction=select_fraction,
        seed=out.seed,
    )
    report.notes.update([note] if note else [])
    left = [
        Pool(source=p.source, records=[r for r in p.records if opening(r) not in openings])
        for p in pools
    ]
    return left, [r for pool in pools for r in pool.records if opening(r) in openings]


def _lacking(side: str, num: int, eval_fraction: float, report: Report) -> str:
    return (
        f"data.{report.role}: of {num} records none is left {side} (data.eval_fraction="
        f"{eval_fraction:g} splits by the opening question); change data.eval_fraction, "
        "add rows, or mark a source of other questions eval: true"
    )


def mixed(pools: list[Pool], *, seed: int, report: Report) -> list[Record]:
    """All records, or the largest mixture in which each source has its share, drawn by the seed."""
    weights = [pool.source.weight for pool in pools]
    if all(weight is None for weight in weights):
        return [record for pool in pools for record in pool.records]
    if any(weight is None for weight in weights):
        lacking = [pool.source.path for pool in pools if pool.source.weight is None]
        raise DataError(
            f"data.{report.role}: give every source that is trained on a weight, or none; "
            f"these have none: {', '.join(lacking)}"
        )
    shares = [weight / sum(weights) for weight in weights]
    total = min(len(pool.records) / share for pool, share in zip(pools, shares, strict=True))
    drawn = []
    for number, (pool, share) in enumerate(zip(pools, shares, strict=True)):
        count = min(len(pool.records), round(total * share))
        drawn += Random(f"{seed}/{report.role}/{number}").sample(pool.records, count)
        if count < len(pool.records):
            report.leave_out(
                f"left out to keep the weight of {pool.source.path}", len(pool.records) - count
            )
    return drawn

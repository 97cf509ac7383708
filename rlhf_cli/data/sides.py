"""Which records are trained on, selected by or held out, and in what shares sources are mixed."""

from dataclasses import dataclass
from random import Random

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError, Record
from rlhf_cli.data.report import Report
from rlhf_cli.data.split import opening, selection, split, without

SHARED = "its question is also in a source marked eval"


@dataclass(slots=True, kw_only=True)
class Pool:
    """A source and its good records."""

    source: Source
    records: list[Record]


def sides(
    pools: list[Pool],
    *,
    named: set[str],
    eval_fraction: float,
    select_fraction: float,
    seed: int,
    report: Report,
) -> tuple[list, list, list]:
    """Return (train, select, held out): by the hash of the opening question, or held out is what
    sources marked eval hold.

    named: openings of all eval sources of all roles; none of them is ever trained on or selected
    by. select_fraction: 0 for roles that select nothing.
    """
    marked = [record for pool in pools if pool.source.eval for record in pool.records]
    trained = [pool for pool in pools if not pool.source.eval]
    held = list(marked)
    if not marked:
        parts = [split(p.records, eval_fraction=eval_fraction, seed=seed) for p in trained]
        held = [record for _, out in parts for record in out]
        trained = [
            Pool(source=pool.source, records=train)
            for pool, (train, _) in zip(trained, parts, strict=True)
        ]
    trained, select = without_named(trained, named, report), []
    if select_fraction:
        openings = {opening(record) for pool in trained for record in pool.records}
        chosen, note = selection(
            openings, eval_fraction=eval_fraction, select_fraction=select_fraction, seed=seed
        )
        report.notes.update([note] if note else [])
        trained, select = parted(trained, chosen)
    train = mixed(trained, seed=seed, report=report)
    for side, records in (("to train on", train), ("to hold out", held)):
        if (train or held) and not records:
            report.problems.append(
                _lacking(side, len(train + select + held), eval_fraction, report)
            )
    return train, select, held


def parted(pools: list[Pool], openings: set[str]) -> tuple[list[Pool], list[Record]]:
    """Return (the pools without the records of these openings, those records)."""
    taken = [r for pool in pools for r in pool.records if opening(r) in openings]
    left = [Pool(source=p.source, records=without(p.records, openings)[0]) for p in pools]
    return left, taken


def _lacking(side: str, num: int, eval_fraction: float, report: Report) -> str:
    return (
        f"data.{report.role}: of {num} records none is left {side} (data.eval_fraction="
        f"{eval_fraction:g} splits by the opening question); change data.eval_fraction, "
        "add rows, or mark a source of other questions eval: true"
    )


def without_named(pools: list[Pool], named: set[str], report: Report) -> list[Pool]:
    """The pools without records that open like one of an eval source; those are counted."""
    parted = []
    for pool in pools:
        fresh, num_shared = without(pool.records, named)
        if num_shared:
            report.leave_out(SHARED, num_shared)
        parted.append(Pool(source=pool.source, records=fresh))
    return parted


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

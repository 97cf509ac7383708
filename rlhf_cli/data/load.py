"""From the configuration to records: read, check, count, hold out. No tensors, no tokenizer."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from rlhf_cli.config.schema import Config
from rlhf_cli.data.encode import encode_sides
from rlhf_cli.data.gather import gather
from rlhf_cli.data.records import DataError, Prompt
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import Loaded, Report
from rlhf_cli.data.sides import Pool, mixed, sides
from rlhf_cli.data.spec import ROLES, LoadSpec, spec_of
from rlhf_cli.data.split import leak_check, opening


def load(cfg: Config, role: str) -> Loaded:
    """The records of `role`, split; refuses when too many rows are bad or a side is empty."""
    loaded = survey(cfg, role)
    loaded.report.enforce()
    return loaded


def survey(cfg: Config, role: str) -> Loaded:
    """As `load`, but what is wrong as a whole is only written into the report."""
    return read(spec_of(cfg, role))


def read(spec: LoadSpec) -> Loaded:
    """The records that the spec describes, by their sides."""
    report = Report(role=spec.role, strict=spec.strict, max_bad_fraction=spec.max_bad_fraction)
    seen: set[bytes] = set()
    pools = []
    for source in spec.sources:
        records = gather(spec, source, spec.read_as, report, drop_ties=spec.drop_ties)
        if spec.read_as != spec.role:
            records = once_each(records, seen, report)
        pools.append(Pool(source=source, records=list(records)))
    train, select, held = part(spec, pools, report)
    report.num_train, report.num_select, report.num_eval = len(train), len(select), len(held)
    return Loaded(train=train, select=select, eval=held, report=report)


def part(spec: LoadSpec, pools: list[Pool], report: Report) -> tuple[list, list, list]:
    """(train, select, held out) of the records of all sources."""
    if spec.role == "pretraining":
        trained = [pool for pool in pools if not pool.source.eval]
        held = [record for pool in pools if pool.source.eval for record in pool.records]
        return mixed(trained, seed=spec.seed, report=report), [], held
    return sides(
        pools,
        named=_named_openings(spec),
        eval_fraction=spec.eval_fraction,
        select_fraction=spec.select_fraction,
        seed=spec.seed,
        report=report,
    )


def _named_openings(spec: LoadSpec) -> set[str]:
    """The openings of every source marked eval, whatever its role."""
    found = set()
    for role, source in spec.marked:
        records = gather(spec, source, role, Report(role=role), drop_ties=False)
        found.update(opening(record) for record in records)
    return found


def check_all(cfg: Config, renderer: Renderer | None = None) -> list[Report]:
    """A report on every role that has sources, whatever is wrong with it: `rlhf data check`.

    With a renderer the records are tokenised as well, which finds what is too long.
    """
    cfg = replace(cfg, data=replace(cfg.data, strict=False))
    specs = [spec_of(cfg, role) for role in ROLES]
    found = {spec.role: _surveyed(spec) for spec in specs if spec.sources}
    note_leaks(found)
    for loaded in found.values() if renderer else ():
        encode_sides(renderer, loaded, cfg.data)
    return [loaded.report for loaded in found.values()]


def _surveyed(spec: LoadSpec) -> Loaded:
    try:
        return read(spec)
    except DataError as error:
        report = Report(role=spec.role, problems=[str(error)])
        return Loaded(train=[], select=[], eval=[], report=report)


def note_leaks(found: dict[str, Loaded]) -> None:
    """Write into the reports which held-out questions another role trains on."""
    leaks = leak_check({role: (loaded.train, loaded.eval) for role, loaded in found.items()})
    for (trained, evaluated), count in leaks.items():
        note = f"held-out records whose question data.{trained} trains on (mark eval in both)"
        found[evaluated].report.notes[note] = count


def once_each(records: Iterable[Any], seen: set[bytes], report: Report) -> Iterator[Prompt]:
    """Yield in place of comparisons their prompts, each once; seen: hashes of those met before."""
    for record in records:
        asked = repr([(m.role, m.content, m.supervised) for m in record.prompt])
        digest = hashlib.sha256(asked.encode(errors="surrogatepass")).digest()
        if digest in seen:
            report.leave_out("a prompt met before", 1)
            continue
        seen.add(digest)
        yield Prompt(record.prompt, record.origin, record.meta)

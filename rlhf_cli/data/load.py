"""From the configuration to records: read, check, count, hold out. No tensors, no tokenizer."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rlhf_cli.config.schema import Config
from rlhf_cli.data.encode import encode_sides
from rlhf_cli.data.gather import gather
from rlhf_cli.data.records import DataError, Prompt
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import EXAMPLES, Loaded, Report
from rlhf_cli.data.sides import Pool, sides, text_sides
from rlhf_cli.data.spec import ROLES, LoadSpec, label, spec_of
from rlhf_cli.data.split import HeldOut, opening


def load(cfg: Config, role: str) -> Loaded:
    """The records of `role`, split; refuses when too many rows are bad or a side is empty."""
    loaded = survey(cfg, role)
    loaded.report.enforce()
    return loaded


def survey(cfg: Config, role: str, *, num_examples: int | None = EXAMPLES) -> Loaded:
    """As `load`, but what is wrong as a whole is only written into the report."""
    return read(spec_of(cfg, role), num_examples=num_examples)


def read(spec: LoadSpec, *, num_examples: int | None = EXAMPLES) -> Loaded:
    """The records that the spec describes, by their sides."""
    report = report_of(spec, num_examples)
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


def report_of(spec: LoadSpec, num_examples: int | None = EXAMPLES) -> Report:
    """The account of a role of which nothing has been read yet."""
    return Report(
        role=spec.role,
        strict=spec.strict,
        max_bad_fraction=spec.max_bad_fraction,
        num_examples=num_examples,
        rows=Counter({label(source): 0 for source in spec.sources}),
    )


def part(spec: LoadSpec, pools: list[Pool], report: Report) -> tuple[list, list, list]:
    """(train, select, held out) of the records of all sources."""
    out = held_out_everywhere(spec)
    if spec.role == "pretraining":
        return text_sides(pools, out, report)
    return sides(pools, out, select_fraction=spec.select_fraction, report=report)


def held_out_everywhere(spec: LoadSpec) -> HeldOut:
    """The questions that no role may train on: of every source marked eval, whatever its role."""
    found: set[str] = set()
    for role, source in spec.marked:
        records = gather(spec, source, role, Report(role=role), drop_ties=False)
        found.update(opening(record) for record in records)
    return HeldOut(
        named=frozenset(found),
        by_hash=spec.by_hash,
        eval_fraction=spec.eval_fraction,
        seed=spec.seed,
    )


def check_all(
    cfg: Config, renderer: Renderer | None = None, *, num_examples: int | None = EXAMPLES
) -> list[Report]:
    """A report on every role that has sources, whatever is wrong with it: `rlhf data check`.

    With a renderer the records are tokenised as well, which finds what is too long.
    """
    from rlhf_cli.data.duplicates import twins, twins_across  # numpy: a run starts without it

    specs = {role: spec_of(cfg, role) for role in ROLES}
    found = {r: _surveyed(spec, num_examples) for r, spec in specs.items() if spec.sources}
    own = {role: one for role, one in found.items() if specs[role].read_as == role}
    repeated = [twin for role, loaded in own.items() for twin in twins(role, loaded)]
    split = {role: loaded for role, loaded in found.items() if role != "pretraining"}
    for twin in [*repeated, *twins_across(split)]:
        found[twin.role].report.note(twin.origin, twin.what, twin.detail)
    for loaded in found.values() if renderer else ():
        encode_sides(renderer, loaded, cfg.data)
    return [loaded.report for loaded in found.values()]


def _surveyed(spec: LoadSpec, num_examples: int | None) -> Loaded:
    try:
        return read(spec, num_examples=num_examples)
    except DataError as error:
        report = Report(role=spec.role, problems=[str(error)])
        return Loaded(train=[], select=[], eval=[], report=report)


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

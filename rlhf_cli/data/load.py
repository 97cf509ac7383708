"""From the configuration to records: read, check, count, hold out. No tensors, no tokenizer."""

from dataclasses import replace

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
    pools = [
        Pool(
            source=source,
            records=gather(spec, source, spec.read_as, report, drop_ties=spec.drop_ties),
        )
        for source in spec.sources
    ]
    if spec.read_as != spec.role:
        _keep_prompts(pools, report)
    if spec.role == "pretraining":
        trained = [pool for pool in pools if not pool.source.eval]
        held = [record for pool in pools if pool.source.eval for record in pool.records]
        train, select = mixed(trained, seed=spec.seed, report=report), []
    else:
        train, select, held = sides(
            pools,
            named=_named_openings(spec),
            eval_fraction=spec.eval_fraction,
            select_fraction=spec.select_fraction,
            seed=spec.seed,
            report=report,
        )
    report.num_train, report.num_select, report.num_eval = len(train), len(select), len(held)
    return Loaded(train=train, select=select, eval=held, report=report)


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


def _keep_prompts(pools: list[Pool], report: Report) -> None:
    """In place of the comparisons their prompts, each once."""
    seen: set = set()
    for pool in pools:
        prompts = [Prompt(c.prompt, c.origin, c.meta) for c in pool.records]
        pool.records = [p for p in prompts if not (p.messages in seen or seen.add(p.messages))]
        if len(pool.records) < len(prompts):
            report.leave_out("a prompt met before", len(prompts) - len(pool.records))

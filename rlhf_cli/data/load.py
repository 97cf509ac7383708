"""From the configuration to records: read, check, count, hold out. No tensors, no tokenizer."""

from collections import Counter

from rlhf_cli.config.schema import Config, Source
from rlhf_cli.data.encode import encode_sides
from rlhf_cli.data.gather import ROLES, WORLD, gather, label
from rlhf_cli.data.records import DataError, Prompt
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import EXAMPLES, Loaded, Report
from rlhf_cli.data.sides import Pool, sides, text_sides
from rlhf_cli.data.sources import source_hash
from rlhf_cli.data.split import HeldOut, opening


def load(cfg: Config, role: str) -> Loaded:
    """The records of `role`, split; refuses when too many rows are bad or a side is empty."""
    loaded = survey(cfg, role)
    loaded.report.enforce()
    return loaded


def survey(cfg: Config, role: str, *, num_examples: int | None = EXAMPLES) -> Loaded:
    """As `load`, but what is wrong as a whole is only written into the report."""
    sources, read_as = _sources(cfg, role)
    report = Report(
        role=role,
        strict=cfg.data.strict,
        max_bad_fraction=cfg.data.max_bad_fraction,
        num_examples=num_examples,
        rows=Counter({label(source): 0 for source in sources}),
    )
    pools = [Pool(source=s, records=gather(cfg, s, read_as, report)) for s in sources]
    if read_as != role:
        _keep_prompts(pools, report)
    out = held_out_everywhere(cfg)
    if role == "pretraining":
        train, select, held = text_sides(pools, out, report)
    else:
        select_fraction = cfg.data.select_fraction if role == "demonstrations" else 0.0
        train, select, held = sides(pools, out, select_fraction=select_fraction, report=report)
    report.num_train, report.num_select, report.num_eval = len(train), len(select), len(held)
    hashes = source_hashes(cfg, role)
    return Loaded(train=train, select=select, eval=held, report=report, hashes=hashes)


def held_out_everywhere(cfg: Config) -> HeldOut:
    """The questions that no role may train on: of every source marked eval, whatever its role."""
    found: set[str] = set()
    for role in ROLES:
        for source in getattr(cfg.data, role):
            if source.eval:
                records = gather(cfg, source, role, Report(role=role))
                found.update(opening(record) for record in records)
    split = [_sources(cfg, role)[0] for role in ROLES if role != "pretraining"]
    return HeldOut(
        named=frozenset(found),
        by_hash=any(sources and not any(s.eval for s in sources) for sources in split),
        eval_fraction=cfg.data.eval_fraction,
        seed=cfg.seed,
    )


def check_all(
    cfg: Config, renderer: Renderer | None = None, *, num_examples: int | None = EXAMPLES
) -> list[Report]:
    """A report on every role that has sources, whatever is wrong with it: `rlhf data check`.

    With a renderer the records are tokenised as well, which finds what is too long.
    """
    from rlhf_cli.data.duplicates import twins, twins_across  # numpy: a run starts without it

    roles = [role for role in ROLES if _sources(cfg, role)[0]]
    found = {role: _surveyed(cfg, role, num_examples) for role in roles}
    own = {role: one for role, one in found.items() if _sources(cfg, role)[1] == role}
    repeated = [twin for role, loaded in own.items() for twin in twins(role, loaded)]
    split = {role: loaded for role, loaded in found.items() if role != "pretraining"}
    for twin in [*repeated, *twins_across(split)]:
        found[twin.role].report.note(twin.origin, twin.what, twin.detail)
    for loaded in found.values() if renderer else ():
        encode_sides(renderer, loaded, cfg.data)
    return [loaded.report for loaded in found.values()]


def _surveyed(cfg: Config, role: str, num_examples: int | None) -> Loaded:
    try:
        return survey(cfg, role, num_examples=num_examples)
    except DataError as error:
        report = Report(role=role, problems=[str(error)])
        return Loaded(train=[], select=[], eval=[], report=report, hashes={})


def _sources(cfg: Config, role: str) -> tuple[list[Source], str]:
    """(sources, the role they are read as); prompts fall back to those of the comparisons."""
    if role not in ROLES:
        raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
    if role == "prompts" and not cfg.data.prompts:
        return cfg.data.comparisons, "comparisons"
    return getattr(cfg.data, role), role


def source_hashes(cfg: Config, role: str) -> dict[str, str]:
    """{source: sha256 of what decides its rows}, without torch."""
    hashes = {}
    for source in _sources(cfg, role)[0]:
        if source.path.startswith(WORLD):
            from rlhf_cli.data.world.generate import settings_hash

            hashes[source.path] = settings_hash(cfg.world, cfg.seed)
        else:
            hashes[label(source)] = source_hash(source)
    return hashes


def _keep_prompts(pools: list[Pool], report: Report) -> None:
    """In place of the comparisons their prompts, each once."""
    seen: set = set()
    for pool in pools:
        prompts = [Prompt(c.prompt, c.origin, c.meta) for c in pool.records]
        pool.records = [p for p in prompts if not (p.messages in seen or seen.add(p.messages))]
        if len(pool.records) < len(prompts):
            report.leave_out("a prompt met before", len(prompts) - len(pool.records))

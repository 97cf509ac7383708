"""A role's records: from the cache, or read from their sources now. Neither torch nor a tokenizer.

Here the configuration becomes the values that the loader takes.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_cli.artifacts.store import FREE, write_errors
from rlhf_cli.config.evaluate_stage import OOD
from rlhf_cli.config.schema import Source, Ties
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.embedded import TASKS
from rlhf_cli.data.report import EXAMPLES, key_of
from rlhf_cli.data.spec import ROLES, LoadSpec, has_tasks
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.telemetry.progress import RowCounter

if TYPE_CHECKING:
    from rlhf_cli.data.record_files import Records
    from rlhf_cli.data.tasks.source import Mixture

CACHE = ".cache"  # in runs_dir


def spec_of(cfg: Config, role: str) -> LoadSpec:
    """Return what the records of a role depend on; prompts fall back to those of the comparisons.

    ood/NAME: a set of evaluation.ood, all of it.
    """
    if role.startswith(OOD):
        return _ood_spec(cfg, role)
    if role not in ROLES:
        raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
    read_as = "comparisons" if role == "prompts" and not cfg.data.prompts else role
    split = [getattr(cfg.data, other) for other in ROLES if other != "pretraining"]
    mixed = has_tasks(getattr(cfg.data, read_as), read_as)
    return LoadSpec(
        role=role,
        read_as=read_as,
        sources=tuple(sources_of(cfg, read_as)),
        marked=tuple((r, s) for r in ROLES for s in getattr(cfg.data, r) if s.eval),
        by_hash=any(sources and not any(s.eval for s in sources) for sources in split),
        seed=cfg.seed,
        eval_fraction=cfg.data.eval_fraction,
        select_fraction=cfg.data.select_fraction if role == "demonstrations" else 0.0,
        drop_ties=role == "comparisons" and drops_ties(cfg),
        settings={scheme: getattr(cfg, scheme) for scheme in TASKS},
        mixture=_mixture(cfg) if mixed else None,
        strict=cfg.data.strict,
        max_bad_fraction=cfg.data.max_bad_fraction,
    )


def sources_of(cfg: Config, role: str) -> Sequence[Source]:
    """Return the sources that are named for a role, or for a set of evaluation.ood."""
    if role.startswith(OOD):
        return [one for one in cfg.evaluation.ood if OOD + one.name == role]
    return getattr(cfg.data, role)


def _ood_spec(cfg: Config, role: str) -> LoadSpec:
    return replace(
        spec_of(cfg, "prompts"),
        read_as=role,
        sources=tuple(sources_of(cfg, role)),
        marked=(),
        by_hash=False,
        eval_fraction=0.0,
        mixture=None,
    )


def drops_ties(cfg: Config) -> bool:
    """Return whether comparisons with nothing but ties teach no stage anything."""
    return cfg.rm.ties is cfg.dpo.ties is Ties.drop


def _mixture(cfg: Config) -> "Mixture":
    """Return what the source tasks:train depends on."""
    from rlhf_cli.data.tasks.source import Mixture

    return Mixture(
        settings=cfg.tasks,
        seed=cfg.seed,
        epochs=cfg.sft.epochs,
        eval_fraction=cfg.data.eval_fraction,
        select_fraction=cfg.data.select_fraction,
    )


def keeps(cfg: Config, spec: LoadSpec) -> bool:
    """Return whether what is read is kept: not in a dry run, nor of a data set that may change unseen."""
    return spec.pinned and not cfg.dry_run


@contextmanager
def cache_of(cfg: Config, spec: LoadSpec) -> Iterator[Path]:
    """Yield the folder of what is kept, or else a temporary one: what is mapped stays readable after it."""
    if keeps(cfg, spec):
        yield Path(cfg.runs_dir) / CACHE
        return
    with tempfile.TemporaryDirectory(prefix="rlhf-") as folder:
        yield Path(folder)


def records_of(
    spec: LoadSpec,
    cache: Path,
    *,
    key: str | None = None,
    num_examples: int | None = EXAMPLES,
    silent: bool = False,
) -> "Records":
    """Return the records of a role, read now if they are not in the cache. key: theirs, where known."""
    # Here, not above: a run that keeps all stages reads no records, and starts without numpy and pyarrow.
    from rlhf_cli.data.cache import making, used
    from rlhf_cli.data.load import Reading, marked_alone, opened, records_key

    key = key or records_key(spec)
    found = opened(cache / key, spec)
    if found is None:
        with write_errors(cache, FREE), making(cache, key) as work:
            reading = Reading(spec, work, num_examples=num_examples)
            counted(f"reading {key_of(spec.read_as)}", reading.rows(), silent=silent)
            marked = [records_of(one, cache, silent=silent) for one in marked_alone(spec)]
            reading.settle([records.table.whole("asked") for records in marked])
            found = opened(work, spec)
            assert found is not None
    used(cache / key)
    return found


def counted(what: str, numbers: Iterable[int], *, silent: bool) -> None:
    """Consume the numbers of rows done, and show the progress with rows per second."""
    with RowCounter(what, silent=silent) as counting:
        for num in numbers:
            heartbeat(what)
            counting.reached(num)

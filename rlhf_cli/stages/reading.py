"""A role's records: from the cache, or read from their sources now. Neither torch nor a tokenizer."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_cli.artifacts.store import FREE, write_errors
from rlhf_cli.config.schema import Config
from rlhf_cli.data.cache import making, used
from rlhf_cli.data.load import Reading, marked_alone, opened, records_key
from rlhf_cli.data.record_files import Records
from rlhf_cli.data.report import EXAMPLES
from rlhf_cli.data.spec import LoadSpec
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.telemetry.progress import RowCounter

CACHE = ".cache"  # in runs_dir


def keeps(cfg: Config, spec: LoadSpec) -> bool:
    """Whether what is read is kept: not in a dry run, nor of a data set that may change unseen."""
    return spec.pinned and not cfg.dry_run


@contextmanager
def cache_of(cfg: Config, spec: LoadSpec) -> Iterator[Path]:
    """The folder of what is kept; where nothing is, one for now: what is mapped outlives it."""
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
) -> Records:
    """The records of a role, read now if they are not in the cache. key: theirs, where it is known."""
    key = key or records_key(spec)
    found = opened(cache / key, spec)
    if found is None:
        with write_errors(cache, FREE), making(cache, key) as work:
            reading = Reading(spec, work, num_examples=num_examples)
            counted(f"reading data.{spec.read_as}", reading.rows(), silent=silent)
            marked = [records_of(one, cache, silent=silent) for one in marked_alone(spec)]
            reading.settle([records.table.whole("asked") for records in marked])
            found = opened(work, spec)
            assert found is not None
    used(cache / key)
    return found


def counted(what: str, numbers: Iterable[int], *, silent: bool) -> None:
    """Show how far it is, with rows per second."""
    with RowCounter(what, silent=silent) as counting:
        for num in numbers:
            heartbeat(what)
            counting.reached(num)

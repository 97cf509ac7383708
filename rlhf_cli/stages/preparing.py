"""A role's encoded rows: from the cache, or made by the main process while the others wait."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rlhf_cli.artifacts.store import FREE, write_errors
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data import load, prepare
from rlhf_cli.data.cache import making, used
from rlhf_cli.data.prepare import Prepared
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import key_of
from rlhf_cli.data.spec import LoadSpec
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.reading import cache_of, counted, keeps, records_of

POLL = 0.2  # seconds between two looks for what the main process prepares
Found = TypeVar("Found")


def prepared(spec: LoadSpec, renderer: Renderer, cfg: Config, world: World) -> Prepared:
    """Return the encoded rows of a role. What is not kept every process makes for itself."""
    with cache_of(cfg, spec) as cache:
        keys = _keys(spec, renderer, cfg) if world.is_main or not keeps(cfg, spec) else ("", "")
        if not keeps(cfg, spec):
            return _made(spec, renderer, cfg, cache, keys, silent=not world.is_main)
        keys = world.broadcast(keys)
        if world.is_main:
            return _made(spec, renderer, cfg, cache, keys)
        records = _awaited(lambda: load.opened(cache / keys[0], spec))
        return _awaited(lambda: prepare.opened(cache / keys[1], spec, records))


def _keys(spec: LoadSpec, renderer: Renderer, cfg: Config) -> tuple[str, str]:
    """Return the keys under which the records and the encoded rows are kept."""
    key = load.records_key(spec)
    return key, prepare.rows_key(key, renderer, cfg.data, spec.role)


def _made(
    spec: LoadSpec,
    renderer: Renderer,
    cfg: Config,
    cache: Path,
    keys: tuple[str, str],
    *,
    silent: bool = False,
) -> Prepared:
    records = records_of(spec, cache, key=keys[0], silent=silent)
    found = prepare.opened(cache / keys[1], spec, records)
    if found is None:
        with write_errors(cache, FREE), making(cache, keys[1], keys[0]) as work:
            rows = prepare.prepare(records, renderer, cfg.data, work)
            counted(f"tokenising {key_of(spec.read_as)}", rows, silent=silent)
            found = prepare.opened(work, spec, records)
            assert found is not None
    used(cache / keys[1])
    return found


def _awaited(look: Callable[[], Found | None]) -> Found:
    while (found := look()) is None:
        heartbeat("waiting for the data")
        time.sleep(POLL)
    return found

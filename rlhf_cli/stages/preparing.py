"""A role's encoded rows: from the cache, or made by the main process while the others wait."""

import tempfile
import time
from pathlib import Path

from rlhf_cli.artifacts.store import FREE, write_errors
from rlhf_cli.config.schema import Config
from rlhf_cli.data import prepare
from rlhf_cli.data.prepare import Prepared
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.spec import LoadSpec
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.runtime.world import World
from rlhf_cli.telemetry.progress import Counting

CACHE = ".cache"  # in runs_dir
POLL = 0.2  # seconds between two looks for what the main process prepares


def prepared(spec: LoadSpec, renderer: Renderer, cfg: Config, world: World) -> Prepared:
    """The rows of a role; a dry run, and a data set that may change unseen, leave nothing behind."""
    if cfg.dry_run or not spec.pinned:
        return _once(spec, renderer, cfg, world)
    cache = Path(cfg.runs_dir) / CACHE
    key = world.broadcast(prepare.key_of(spec, renderer, cfg.data) if world.is_main else "")
    found = prepare.kept(cache, key, spec)
    if found is None and world.is_main:
        with write_errors(cache, FREE):
            work = prepare.beside(cache, key)
            try:
                _make(spec, renderer, cfg, work)
                prepare.publish(work, cache, key, spec)
            finally:
                prepare.remove(work)
        found = prepare.opened(cache / key, spec)
    while found is None:
        heartbeat("waiting for the data")
        time.sleep(POLL)
        found = prepare.opened(cache / key, spec)
    return found


def _once(spec: LoadSpec, renderer: Renderer, cfg: Config, world: World) -> Prepared:
    """For this process alone: what is mapped stays readable when its folder is gone."""
    with tempfile.TemporaryDirectory(prefix="rlhf-") as folder:
        _make(spec, renderer, cfg, Path(folder), silent=not world.is_main)
        found = prepare.opened(Path(folder), spec)
    assert found is not None
    return found


def _make(
    spec: LoadSpec, renderer: Renderer, cfg: Config, folder: Path, *, silent: bool = False
) -> None:
    with Counting(f"reading data.{spec.role}", silent=silent) as counting:
        for num in prepare.prepare(spec, renderer, cfg.data, folder):
            heartbeat("reading data")
            counting.reached(num)

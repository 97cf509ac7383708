"""Cache of data that was read: a folder per key, complete or absent, limited by total size."""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from secrets import token_hex
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa

from rlhf_cli.data.records import BadRow, Origin
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.spec import LoadSpec

SIDES = ("train", "select", "eval")
REPORT, INDEX = "report.json", "sides.npz"
KEEP = 20 << 30  # bytes of all that is kept; the longest unused goes first
LEFT = 86_400.0  # seconds after which a folder that was not finished is removed
Unusable = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, pa.ArrowInvalid)


def code() -> str:
    """Return the sha256 of the code that reads data."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_account(folder: Path, sides: Iterable[np.ndarray], report: DataReport) -> None:
    """Write which rows each side has, and then the report: with it a folder is complete."""
    np.savez(folder / INDEX, **dict(zip(SIDES, sides, strict=True)))
    content = {f.name: getattr(report, f.name) for f in fields(report)}
    examples = {what: [asdict(row) for row in rows] for what, rows in report.examples.items()}
    (folder / REPORT).write_text(json.dumps(content | {"examples": examples}))


def read_account(folder: Path, spec: LoadSpec) -> tuple[dict[str, np.ndarray], DataReport]:
    """Return ({side: rows}, the report under the current rules); raises one of Unusable."""
    content = json.loads((folder / REPORT).read_text())
    with np.load(folder / INDEX) as sides:
        return {side: sides[side] for side in SIDES}, _report(spec, content)


def _report(spec: LoadSpec, content: dict[str, Any]) -> DataReport:
    for name in ("rows", "bad", "left_out", "notes"):
        content[name] = Counter(content[name])
    content["examples"] = {
        what: [BadRow(**{**row, "origin": Origin(**row["origin"])}) for row in rows]
        for what, rows in content["examples"].items()
    }
    content |= {"strict": spec.strict, "max_bad_fraction": spec.max_bad_fraction}
    return DataReport(**content)


def used(folder: Path) -> None:
    """Mark the folder as used now."""
    with suppress(OSError):
        folder.touch()


@contextmanager
def making(cache: Path, key: str, *needed: str) -> Iterator[Path]:
    """Yield an empty folder, which is renamed to its place at the end, and removed where that fails.

    needed: other keys that are in use.
    """
    work = cache / f".{key}.{token_hex(8)}"
    work.mkdir(parents=True)
    try:
        yield work
        _publish(work, cache / key)
        sweep(cache, {key, *needed})
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, place: Path) -> None:
    """Rename a folder to its place. What is there, another run's or damaged, is removed."""
    aside = work.with_name(f"{work.name}.gone")
    with suppress(OSError):
        place.rename(aside)
    try:
        work.rename(place)
    except OSError:  # another run was as fast
        if not place.is_dir():
            raise
    shutil.rmtree(aside, ignore_errors=True)


def sweep(cache: Path, needed: set[str], *, keep: int = KEEP) -> None:
    """Remove the longest unused until at most `keep` bytes are left, but nothing needed."""
    with suppress(OSError):
        total, now = 0, time.time()
        ages = {path: now - path.stat().st_mtime for path in cache.iterdir()}
        for folder in sorted(ages, key=lambda path: (path.name not in needed, ages[path])):
            begun = folder.name.startswith(".")  # another run's, unless it has been left
            if begun and ages[folder] < LEFT:
                continue
            total += sum(file.stat().st_size for file in folder.iterdir())
            if folder.name not in needed and (begun or total > keep):
                shutil.rmtree(folder, ignore_errors=True)

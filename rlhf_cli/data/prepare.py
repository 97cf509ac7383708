"""A role's rows from its sources to encoded rows on disk, made once and kept for every later start.

One pass over the sources, of which a few hundred records are held at a time; then the sides.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import pyarrow as pa

from rlhf_cli.config.schema import Data
from rlhf_cli.data.encode import encode_each, note_emptied
from rlhf_cli.data.gather import gather
from rlhf_cli.data.load import once_each, part, report_of
from rlhf_cli.data.records import (
    BadRow,
    Comparison,
    Demonstration,
    LeftOut,
    Origin,
    Prompt,
    Record,
    RowError,
)
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import Report
from rlhf_cli.data.rows import Placed, Rows, RowWriter, Table
from rlhf_cli.data.sides import Pool
from rlhf_cli.data.spec import LoadSpec

KINDS = {"comparisons": Comparison, "prompts": Prompt}
SIDES = ("train", "select", "eval")
ROWS, REPORT, INDEX = "rows.arrow", "report.json", "sides.npz"
KEEP = 20 << 30  # bytes of all that is kept; the longest unused goes first
LEFT = 86_400.0  # seconds after which a folder that was not finished is removed
STEP = 1024  # rows between two signs of life


@dataclass(slots=True, kw_only=True)
class Prepared:
    """The sides of a role as encoded rows, and the account of its rows."""

    train: Rows
    select: Rows
    eval: Rows
    report: Report


def key_of(spec: LoadSpec, renderer: Renderer, data: Data) -> str:
    """sha256 of all that decides the encoded rows and the account of them, this code included."""
    limits = [data.max_prompt_tokens, data.max_response_tokens, data.long_prompts.name]
    if spec.role != "prompts":
        limits.append(data.long_responses.name)
    fast = renderer.tokenizer.backend_tokenizer.to_str() if renderer.tokenizer.is_fast else ""
    labels = {role: list(found.items()) for role, found in spec.contents().items()}
    known = [spec.role, spec.config(), labels, limits, renderer.hash, fast, _code()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def _code() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def opened(folder: Path, spec: LoadSpec) -> Prepared | None:
    """What was prepared in this folder; None where there is nothing whole."""
    try:
        content = json.loads((folder / REPORT).read_text())
        with np.load(folder / INDEX) as sides:
            index = {side: sides[side] for side in SIDES}
        table = Table(folder / ROWS, KINDS.get(spec.role, Demonstration))
        report = _report(spec, content)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid):
        return None
    return Prepared(**{side: Rows(table, index[side]) for side in SIDES}, report=report)


def kept(cache: Path, key: str, spec: LoadSpec) -> Prepared | None:
    """What an earlier start has prepared, which is marked as used."""
    found = opened(cache / key, spec)
    if found:
        with suppress(OSError):
            (cache / key).touch()
    return found


def prepare(spec: LoadSpec, renderer: Renderer, data: Data, folder: Path) -> Iterator[int]:
    """Write a role's rows into the folder; yield the number of those encoded so far."""
    report = report_of(spec)
    seen: set[bytes] = set()
    spans = []
    with RowWriter(folder / ROWS, KINDS.get(spec.role, Demonstration)) as writer:
        for source in spec.sources:
            start = writer.num
            records: Iterable[Record] = gather(
                spec, source, spec.read_as, report, drop_ties=spec.drop_ties
            )
            if spec.read_as != spec.role:
                records = once_each(records, seen, report)
            for record, found in encode_each(renderer, records, data):
                writer.add(record, found)
                if writer.num % STEP == 0:
                    yield writer.num
            spans.append((source, range(start, writer.num)))
    table = Table(folder / ROWS, KINDS.get(spec.role, Demonstration))
    pools: list[Pool] = [
        Pool(source=source, records=[Placed(table, row) for row in span]) for source, span in spans
    ]
    index = _settled(table, part(spec, pools, report), report, renderer)
    np.savez(folder / INDEX, **dict(zip(SIDES, index, strict=True)))
    (folder / REPORT).write_text(json.dumps(_content(report)))


def _settled(table: Table, sides: tuple[list, list, list], report: Report, renderer: Renderer):
    """The rows of each side that could be encoded; what is to be told of them goes into the report."""
    told, index = set(table.told().tolist()), []
    for side in sides:
        rows = [placed.row for placed in side]
        lost = {row for row in rows if row in told and not _account(table, row, report)}
        index.append(np.array([row for row in rows if row not in lost], dtype=np.int64))
        report.notes |= dict.fromkeys(renderer.notes, 1)
    note_emptied(report, [len(side) for side in sides], [len(rows) for rows in index])
    return index


def _account(table: Table, row: int, report: Report) -> bool:
    """Tell the report of a row; whether the row can be used."""
    said = table.said(row)
    if len(said) == 3:
        reason, detail, left_out = said
        error = (LeftOut if left_out else RowError)(reason, detail)
        report.withdraw(table.record(row).origin, error)
        return False
    notes, differences = said
    report.notes.update(notes)
    for what, detail in differences.items():
        report.note(table.record(row).origin, what, detail)
    return True


def _content(report: Report) -> dict[str, Any]:
    """The report as JSON values."""
    content = {f.name: getattr(report, f.name) for f in fields(report)}
    examples = {what: [asdict(row) for row in rows] for what, rows in report.examples.items()}
    return content | {"examples": examples}


def _report(spec: LoadSpec, content: dict[str, Any]) -> Report:
    """A report that was written, under the rules of now."""
    for name in ("rows", "bad", "left_out", "notes"):
        content[name] = Counter(content[name])
    content["examples"] = {
        what: [BadRow(**{**row, "origin": Origin(**row["origin"])}) for row in rows]
        for what, rows in content["examples"].items()
    }
    content |= {"strict": spec.strict, "max_bad_fraction": spec.max_bad_fraction}
    return Report(**content)


def beside(cache: Path, key: str) -> Path:
    """An empty folder in which to prepare what is put in its place when whole."""
    work = cache / f".{key}.{token_hex(8)}"
    work.mkdir(parents=True)
    return work


def remove(work: Path) -> None:
    """Leave nothing of what was not finished."""
    shutil.rmtree(work, ignore_errors=True)


def publish(work: Path, cache: Path, key: str, spec: LoadSpec) -> None:
    """Put a prepared folder in its place, unless another run has; then sweep what is too much."""
    place = cache / key
    if opened(place, spec) is None:
        shutil.rmtree(place, ignore_errors=True)
    try:
        work.rename(place)
    except OSError:
        if not place.is_dir():
            raise
    sweep(cache, key)


def sweep(cache: Path, key: str, *, keep: int = KEEP) -> None:
    """Remove what was longest unused until the rest has at most `keep` bytes; never `key` itself."""
    with suppress(OSError):
        total, now = 0, time.time()
        ages = {path: now - path.stat().st_mtime for path in cache.iterdir()}
        for folder in sorted(ages, key=lambda path: (path.name != key, ages[path])):
            begun = folder.name.startswith(".")  # another run's, unless it has been left
            if begun and ages[folder] < LEFT:
                continue
            total += sum(file.stat().st_size for file in folder.iterdir())
            if folder.name != key and (begun or total > keep):
                shutil.rmtree(folder, ignore_errors=True)

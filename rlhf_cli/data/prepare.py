"""A role's records to encoded rows on disk, made once and cached for every later start."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlhf_cli.config.schema import Data
from rlhf_cli.data.cache import Unusable, code, read_account, write_account
from rlhf_cli.data.encode import encode_each
from rlhf_cli.data.load import STEP
from rlhf_cli.data.record_files import Records
from rlhf_cli.data.records import Filtered, RowError
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import DataReport, key_of
from rlhf_cli.data.rows import Rows, RowTable, RowWriter
from rlhf_cli.data.spec import LoadSpec

ROWS = "rows.arrow"


@dataclass(slots=True, kw_only=True)
class Prepared:
    """The sides of a role as encoded rows, and the report of its rows."""

    train: Rows
    select: Rows
    eval: Rows
    report: DataReport


def rows_key(records_key: str, renderer: Renderer, data: Data, role: str) -> str:
    """Return the sha256 of all that decides the encoded rows and their report, this code included."""
    limits = [data.max_prompt_tokens, data.max_response_tokens, data.long_prompts.name]
    if role != "prompts":
        limits.append(data.long_responses.name)
    fast = renderer.tokenizer.backend_tokenizer.to_str() if renderer.tokenizer.is_fast else ""
    parts = [records_key, limits, renderer.hash, fast, code()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def opened(folder: Path, spec: LoadSpec, records: Records) -> Prepared | None:
    """Return the rows prepared in this folder; None where they are not complete."""
    try:
        sides, report = read_account(folder, spec)
        table = RowTable(folder / ROWS, records.table)
    except Unusable:
        return None
    return Prepared(**{side: Rows(table, rows) for side, rows in sides.items()}, report=report)


def prepare(records: Records, renderer: Renderer, data: Data, folder: Path) -> Iterator[int]:
    """Write the encoded rows of all sides into a folder; yield their number so far, now and then.

    The report of the records becomes that of the rows.
    """
    used = np.sort(np.concatenate(records.sides))
    with RowWriter(folder / ROWS, records.table.kind) as writer:
        encoded = encode_each(renderer, records.each(used), data)
        for row, (_, found) in zip(used.tolist(), encoded, strict=True):
            writer.write(row, found)
            if writer.num % STEP == 0:
                yield writer.num
        yield writer.num
    table = RowTable(folder / ROWS, records.table)
    sides = [np.searchsorted(used, rows) for rows in records.sides]
    left = _settled(table, sides, records.report, renderer)
    write_account(folder, left, records.report)


def _settled(
    table: RowTable, sides: list[np.ndarray], report: DataReport, renderer: Renderer
) -> list[np.ndarray]:
    """Return the rows of each side that could be encoded; findings go into the report."""
    reported, left = table.rows_with_findings(), []
    for rows in sides:
        worth = rows[np.isin(rows, reported)].tolist()
        lost = [row for row in worth if not _account(table, row, report)]
        left.append(rows[~np.isin(rows, lost)] if lost else rows)
        report.notes |= dict.fromkeys(renderer.notes, 1)
    before, after = ([table.num_per_epoch(rows) for rows in some] for some in (sides, left))
    _note_emptied(report, before, after)
    return left


def _account(table: RowTable, row: int, report: DataReport) -> bool:
    """Count a row in the report; return whether it can be used."""
    findings = table.findings(row)
    if len(findings) == 3:
        reason, detail, left_out = findings
        error = (Filtered if left_out else RowError)(reason, detail)
        report.withdraw(table.record(row).origin, error)
        return False
    notes, differences = findings
    report.notes.update(notes)
    for what, detail in differences.items():
        report.note(table.record(row).origin, what, detail)
    return True


def _note_emptied(report: DataReport, before: list[int], after: list[int]) -> None:
    """Write into the report how many of (train, select, held out) are left, and which side is empty."""
    report.num_train, report.num_select, report.num_eval = after
    for side, place in (("train on", 0), ("hold out", 2)):
        if before[place] and not after[place]:
            report.problems.append(
                f"{key_of(report.role)}: of {before[place]} records none to {side} is left after "
                f"tokenising{report.first()}; see data.max_prompt_tokens, "
                "data.max_response_tokens, data.long_prompts, data.long_responses"
            )

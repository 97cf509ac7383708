"""The file of what a stage has sampled so far: JSON lines, on the disk before their checkpoint."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.store import FREE, write_errors, write_text
from rlhf_cli.config.errors import UserError


def append_drawn(path: Path, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the rows of a step to the file; they are on the disk when this returns."""
    lines = [json.dumps({"step": step, **row}, ensure_ascii=False) for row in rows]
    with write_errors(path, FREE), path.open("a", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def keep_drawn(path: Path, done: int) -> None:
    """Remove what was written after the last step that was saved, also a line torn by a crash."""
    found = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in found if (step := _step_of(line)) and step <= done]
    if done and (not kept or _step_of(kept[-1]) != done):
        raise UserError(
            f"{path} has lost samples of the {done} steps that were saved; resume=never draws them again"
        )
    with write_errors(path, FREE):
        write_text(path, "".join(kept))


def _step_of(line: str) -> int | None:
    try:
        return json.loads(line)["step"]
    except ValueError:  # torn
        return None


def read_drawn(path: Path) -> list[dict[str, Any]]:
    """Return all rows of the file, without their steps."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "step"} for row in rows]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of JSON lines, with its folder."""
    with write_errors(path, FREE):
        path.parent.mkdir(exist_ok=True)
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

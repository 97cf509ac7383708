"""The files of the stage rationales: what is drawn so far, and what it leaves."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlhf_cli.artifacts.store import FREE, write_errors, write_text
from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation.rationale_checks import Rationale

DEMONSTRATIONS, EVERY = Path("data") / "demonstrations.jsonl", "rationales.jsonl"


def append_drawn(path: Path, step: int, found: Sequence[Rationale]) -> None:
    """Add a step's rationales to the file; they are on the disk when this returns."""
    lines = [json.dumps({"step": step, **asdict(one)}, ensure_ascii=False) for one in found]
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
            f"{path} has lost rationales of the {done} steps that were saved; resume=never draws them again"
        )
    with write_errors(path, FREE):
        write_text(path, "".join(kept))


def _step_of(line: str) -> int | None:
    try:
        return json.loads(line)["step"]
    except ValueError:  # torn
        return None


def read_drawn(path: Path) -> list[Rationale]:
    """Return all rationales of the file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Rationale(**{k: v for k, v in row.items() if k != "step"}) for row in rows]


def write_rationales(out: Path, found: Sequence[Rationale], dropped: Sequence[str | None]) -> None:
    """Write what was kept as demonstrations, and every rationale with why it was dropped."""
    pairs = list(zip(found, dropped, strict=True))
    kept = [one.demonstration() for one, why in pairs if why is None]
    every = [asdict(one) | {"dropped": why} for one, why in pairs]
    with write_errors(out, FREE):
        (out / DEMONSTRATIONS).parent.mkdir(exist_ok=True)
        for path, rows in ((out / DEMONSTRATIONS, kept), (out / EVERY, every)):
            write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

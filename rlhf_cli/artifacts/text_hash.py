"""Hashes of tokenizer and chat template: models with equal ones read the same text.

Chat templates may print today's date: for all stages of a run it is the day on which the run was begun.
"""

import json
from datetime import date
from pathlib import Path

from rlhf_cli.artifacts.manifest import canonical_hash
from rlhf_cli.artifacts.store import FREE, file_hash, write_errors, write_text

DATE = ".date"
VOCABULARIES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model")
USAGE = (
    "padding",
    "truncation",
)  # state of the last call, saved by the library, no part of the text


def tokenizer_hash(model: Path) -> str | None:
    """Return the hash of what maps text to tokens; None when the folder has no tokenizer."""
    fast = model / "tokenizer.json"
    if fast.is_file():
        content = json.loads(fast.read_text(encoding="utf-8"))
        return canonical_hash({k: v for k, v in content.items() if k not in USAGE})
    slow = {name: file_hash(model / name) for name in VOCABULARIES if (model / name).is_file()}
    return canonical_hash(slow) if slow else None


def template_hash(model: Path) -> str | None:
    """Return the hash of the chat template saved with the model; None when there is none."""
    if (model / "chat_template.jinja").is_file():
        return file_hash(model / "chat_template.jinja")
    settings = model / "tokenizer_config.json"
    if not settings.is_file():
        return None
    template = json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
    return canonical_hash(template) if template else None


def run_date(run: Path) -> str:
    """Return the day on which the run was started, YYYY-MM-DD; today for a new run."""
    kept = run / DATE
    return kept.read_text().strip() if kept.is_file() else date.today().isoformat()


def keep_date(run: Path, day: str | None) -> None:
    """Store the day on which the run was started, once."""
    if day is not None and not (run / DATE).is_file():
        with write_errors(run / DATE, FREE):
            write_text(run / DATE, f"{day}\n")

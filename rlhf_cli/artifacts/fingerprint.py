"""The fingerprint of a stage: configuration, contents of files, parents and code version.

Models whose tokenizer and chat template have equal hashes read the same text. Chat templates may print
today's date: for all stages of a run it is the day on which the run was begun.
"""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.manifest import StageManifest, canonical_hash
from rlhf_cli.artifacts.store import FREE, file_hash, write_errors, write_text

SMALL = 16 << 20  # bytes of a file up to which its content is hashed
TEMPLATES = "additional_chat_templates"  # the one folder inside that transformers reads
READ_BY_PEOPLE = "*.md"
DATE = ".date"  # the file of a run that holds the day on which it was begun
VOCABULARIES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model")
# State of the last call, which the library saves with a tokenizer: no part of the text.
USAGE = ("padding", "truncation")


@dataclass(slots=True, kw_only=True)
class Fingerprint:
    """What the result of a stage depends on.

    config: the flat keys that the stage reads. data: key -> name -> sha256 of the content; names do not
    count. parents: role -> digest. open: keys that the configuration leaves to the machine; any value of
    an earlier run is accepted.
    """

    config: dict[str, Any]
    data: dict[str, dict[str, str]]
    parents: dict[str, str]
    version: str
    open: tuple[str, ...] = ()

    def equals(self, made: "StageManifest | Fingerprint") -> bool:
        """Return whether the finished stage has exactly this fingerprint."""
        return not self.changes(made)

    def changes(self, made: "StageManifest | Fingerprint") -> list[str]:
        """Return the differences of a finished or interrupted stage, the most important one first."""
        found = [
            f"{key} changed {_show(made.config.get(key))} -> {_show(self.config.get(key))}"
            for key in _differing(made.config, self.config)
            if key not in self.open
        ]
        found += [f"{_role(r)} changed" for r in _differing(made.parents, self.parents)]
        for key in {**made.data, **self.data}:
            found += _content_changes(key, made.data.get(key, {}), self.data.get(key, {}))
        if made.version != self.version:
            found.append(f"rlhf changed {made.version} -> {self.version}")
        return found


def _role(role: str) -> str:
    models = (
        "base", "reward_model", "tokenizer", "scorer", "toxicity_model", "sentiment_model",
        "embedder", "nli",
    )  # fmt: skip
    if "." in role:  # named by its key
        return role
    return f"model {role}" if role in models else f"parent {role}"


def _differing(old: dict, new: dict) -> list[str]:
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def _content_changes(key: str, old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return one line where contents differ, if any; other names of the same contents do not count."""
    if list(old.values()) == list(new.values()):
        return []
    if list(old) == list(new):
        edited = ", ".join(_differing(old, new))
        return [f"{key}: {edited} was edited"]
    gone = [name for name in old if new.get(name) != old[name]]
    come = [name for name in new if old.get(name) != new[name]]
    if not gone and not come:
        return [f"{key}: the order of its paths changed"]
    return [f"{key}: path {', '.join(gone) or 'none'} -> {', '.join(come) or 'none'}"]


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False).strip('"')
    return text if len(text) <= 40 else f"{text[:37]}..."


def model_hash(path: str, revision: str | None) -> str:
    """Return the identity of a model: contents of a local folder (big files by size and time), or hub id.

    A file of an unknown name counts: it may be one that transformers reads. Texts for people do not.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return f"hub:{path}@{revision or 'main'}"
    found = [*folder.iterdir(), *(folder / TEMPLATES).glob("*")]
    files = [p for p in sorted(found) if p.is_file() and not p.match(READ_BY_PEOPLE)]
    return canonical_hash({str(p.relative_to(folder)): _identity(p) for p in files})


def _identity(path: Path) -> str:
    stat = path.stat()
    return file_hash(path) if stat.st_size <= SMALL else f"{stat.st_size}:{stat.st_mtime_ns}"


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

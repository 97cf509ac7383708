"""What a finished stage says about itself: a folder with a valid manifest is finished."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rlhf_cli.config.errors import UserError

MANIFEST = "manifest.json"
FINISHED = "finished"


class Refusal(UserError):
    """An artifact that may not be used: what was found, and what to do about it."""

    def __init__(self, found: str, remedy: str = ""):
        super().__init__(f"{found}; {remedy}" if remedy else found)
        self.found, self.remedy = found, remedy


@dataclass(slots=True, kw_only=True)
class FileRecord:
    bytes: int
    sha256: str


@dataclass(slots=True, kw_only=True)
class StageManifest:
    """`digest` is the hash of everything else here: children name their parents by it.

    config, data, parents: what the stage was made of (fingerprint.py) . date: what a chat template that
    prints today's date says in this stage.
    """

    stage: str
    status: str
    version: str
    commit: str | None
    config: dict[str, Any]
    data: dict[str, dict[str, str]]
    parents: dict[str, str]
    origins: dict[str, str]
    tokenizer_hash: str | None
    template_hash: str | None
    seed: int
    step: int
    started: str
    finished: str
    metrics: dict[str, float | None]
    date: str | None = None
    files: dict[str, FileRecord] = field(default_factory=dict)
    digest: str = ""

    def seal(self) -> "StageManifest":
        """Set the digest; to be called last."""
        self.digest = self.computed_digest()
        return self

    def computed_digest(self) -> str:
        """sha256 over every other field."""
        content = asdict(self)
        content.pop("digest")
        return canonical_hash(content)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"


def canonical_hash(value: Any) -> str:
    """sha256 of JSON with sorted keys: the same values, the same hash, whatever their order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> StageManifest:
    """The manifest of a finished stage, refused when missing, unreadable, unfinished or edited."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise Refusal(f"{folder} does not exist")
    if not path.is_file():
        raise Refusal(
            f"{folder} has no {MANIFEST}: it was not finished by rlhf", "run its stage again"
        )
    manifest = _parse(path)
    if manifest.status != FINISHED:
        raise Refusal(f"{folder} is not finished (status {manifest.status})", "run its stage again")
    if manifest.digest != manifest.computed_digest():
        raise Refusal(f"{path} was edited after it was written", "run its stage again")
    return manifest


def _parse(path: Path) -> StageManifest:
    try:
        content = json.loads(path.read_text())
        names = {f.name for f in fields(StageManifest)}
        if set(content) != names:
            odd = ", ".join(sorted(set(content) ^ names))
            raise ValueError(f"fields missing or unknown: {odd}")
        files = {name: FileRecord(**record) for name, record in content.pop("files").items()}
        return StageManifest(**content, files=files)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise Refusal(f"{path} cannot be read ({reason})", "run its stage again") from error

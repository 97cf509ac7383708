"""The manifest of a finished stage: a folder with a valid manifest is finished."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import DATA, MANIFEST, MEMBERS, MODEL
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.config.keys import PACKAGE

FINISHED = "finished"


class ArtifactError(UserError):
    """An artifact that may not be used: what was found, and what to do about it."""

    def __init__(self, found: str, remedy: str = ""):
        super().__init__(f"{found}; {remedy}" if remedy else found)
        self.found, self.remedy = found, remedy


class RepairableError(ArtifactError):
    """An artifact that the user can repair: it must not be trained again."""

    code = ExitCode.FAILURE


@contextmanager
def read_errors(what: Path) -> Iterator[None]:
    """Raise errors of reading `what` as a RepairableError: a file that cannot be read is not damaged."""
    try:
        yield
    except OSError as error:
        found = f"{error.filename or what} cannot be read ({error.strerror or error})"
        raise RepairableError(found, "make it readable, then run the same command again") from error


def load_json(path: Path) -> Any:
    """Return the JSON of a file; ValueError where it is invalid or nested too deep."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def load_version(path: Path, version: int, *, remedy: str) -> dict[str, Any]:
    """Return a file's JSON object without its version; ArtifactError where that is another one."""
    content = load_json(path)
    found = content.pop("version")
    if found != version:
        reason = f"{path} is of version {found}, and this program reads version {version}"
        raise ArtifactError(reason, remedy)
    return content


@dataclass(slots=True, kw_only=True)
class FileRecord:
    bytes: int
    sha256: str


@dataclass(slots=True, kw_only=True)
class StageManifest:
    """The inputs, times and results of a finished stage.

    config, data, parents: its fingerprint (fingerprint.py). date: what a chat template that prints
    today's date prints in this stage. digest: the hash of the models or data that other stages
    read, which identifies their parent; a stage made again with the same result keeps its children.
    checksum: the hash of everything else here.
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
    checksum: str = ""

    def seal(self) -> "StageManifest":
        """Set digest and checksum; to be called last."""
        read = {
            name: file.sha256
            for name, file in self.files.items()
            if name.split("/")[0] in (MODEL, MEMBERS, DATA)
        }
        self.digest = canonical_hash({"stage": self.stage, "files": read})
        self.checksum = self.computed_checksum()
        return self

    def computed_checksum(self) -> str:
        """Return the sha256 over every other field."""
        content = asdict(self)
        content.pop("checksum")
        return canonical_hash(content)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"


def canonical_hash(value: Any) -> str:
    """Return the sha256 of JSON with sorted keys, which does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> StageManifest:
    """Return a finished stage's manifest; ArtifactError if missing, unreadable, unfinished or edited."""
    path = folder / MANIFEST
    with read_errors(path):
        if not folder.is_dir():
            raise ArtifactError(f"{folder} does not exist")
        if not path.is_file():
            raise ArtifactError(
                f"{folder} has no {MANIFEST}: it was not finished by rlhf", "run its stage again"
            )
        manifest = _parse(path)
    if manifest.status != FINISHED:
        raise ArtifactError(
            f"{folder} is not finished (status {manifest.status})", "run its stage again"
        )
    if manifest.checksum != manifest.computed_checksum():
        raise ArtifactError(f"{path} was edited after it was written", "run its stage again")
    return manifest


def _parse(path: Path) -> StageManifest:
    try:
        content = load_json(path)
        names = {f.name for f in fields(StageManifest)}
        if set(content) != names:
            odd = ", ".join(sorted(set(content) ^ names))
            raise ValueError(f"fields missing or unknown: {odd}")
        files = {name: FileRecord(**record) for name, record in content.pop("files").items()}
        return StageManifest(**content, files=files)
    except (ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path} cannot be read ({reason})", "run its stage again") from error


def checkout_commit() -> str | None:
    """Return the git commit of a checkout; None when installed from a wheel."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    found = subprocess.run(
        ["git", "-C", str(PACKAGE.parent), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return found.stdout.strip() or None if found.returncode == 0 else None

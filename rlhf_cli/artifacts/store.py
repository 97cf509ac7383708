"""Files and folders of stages: written atomically, and verified when opened."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_cli.artifacts.layout import (
    BESIDE,
    BEST,
    GONE,
    MANIFEST,
    MEMBERS,
    MODEL,
    is_leftover,
    work_folder,
)
from rlhf_cli.artifacts.manifest import (
    ArtifactError,
    FileRecord,
    RepairableError,
    StageManifest,
    read_errors,
    read_manifest,
)
from rlhf_cli.config.errors import ExitCode, UserError

CHUNK = 1 << 20
MODEL_FILES = (
    "*model/**/*",
    f"{MEMBERS}/**/*",
    f"{BEST}/**/*",
)  # what transformers may read of a stage
FREE = "free space there or make it writable, then run the same command again"


class WriteError(UserError):
    """The disk is full, read-only or lost: the run failed, and earlier results are unchanged."""

    code = ExitCode.FAILURE


@contextmanager
def write_errors(what: Path, remedy: str, *also: type[Exception]) -> Iterator[None]:
    """Raise errors of writing `what` as a WriteError. also: what a library raises instead of OSError."""
    try:
        yield
    except (OSError, *also) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise WriteError(f"{what} cannot be written ({reason}); {remedy}") from error


def create_work_folder(run: Path, stage: str) -> Path:
    """Return an empty work folder for `stage`; what an earlier attempt left there is removed."""
    work = work_folder(run, stage)
    with write_errors(work, FREE):
        remove(work)
        work.mkdir(parents=True)
    return work


def open_stage(folder: Path, role: str, *, stage: str | None = None) -> StageManifest:
    """Return the manifest of a verified stage folder for `role`; ArtifactError with reason and remedy."""
    try:
        manifest = verified(folder)
    except ArtifactError as refusal:
        raise type(refusal)(f"{role}: {refusal.found}", refusal.remedy) from refusal
    expected = stage or role
    if manifest.stage != expected:
        raise ArtifactError(
            f"{role}: {folder} holds the stage {manifest.stage}, not {expected}",
            f"to use its weights all the same, give its model folder {folder / 'model'}",
        )
    return manifest


def verified(folder: Path) -> StageManifest:
    """Return the manifest, after checking the size and hash of every file it names.

    RepairableError: a file that cannot be read, or one in a model folder that the manifest does not name.
    """
    manifest = read_manifest(folder)
    for name, record in manifest.files.items():
        if found := mismatch(folder / name, record):
            raise ArtifactError(f"{folder / name} {found}", f"run the stage {manifest.stage} again")
    for path in _unknown_files(folder, manifest):
        found = (
            f"{path} was added after the stage was finished, and can change how its model is read"
        )
        raise RepairableError(found, "remove it")
    return manifest


def _unknown_files(folder: Path, manifest: StageManifest) -> Iterator[Path]:
    """Yield files in model folders that the manifest does not name; hidden ones are not read."""
    with read_errors(folder):
        for path in sorted(path for each in MODEL_FILES for path in folder.glob(each)):
            name = path.relative_to(folder)
            is_hidden = any(part.startswith(".") for part in name.parts)
            known = is_hidden or name.as_posix() in manifest.files
            if not known and (path.is_file() or path.is_symlink()):
                yield path


def mismatch(path: Path, record: FileRecord, *, hashed: bool = True) -> str | None:
    """Return how a file differs from its record, if it does; without `hashed` by its size alone."""
    with read_errors(path):
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
        if size != record.bytes:
            word = "truncated" if size < record.bytes else "longer than written"
            return f"is {word}: {size} bytes instead of {record.bytes}"
        same = not hashed or file_hash(path) == record.sha256
    return None if same else "was changed after it was written"


def model_folder(folder: Path) -> Path:
    """Return the model inside a stage folder; a Hugging Face folder or hub id is returned unchanged."""
    return folder / MODEL if (folder / MANIFEST).is_file() else folder


def member_folders(folder: Path) -> list[Path]:
    """Return the models of an ensemble inside a stage folder, in order; else `model_folder` alone."""
    others = (path for path in (folder / MEMBERS).glob("[0-9]*") if path.is_dir())
    return [model_folder(folder), *sorted(others, key=lambda path: int(path.name))]


def file_records(folder: Path, left_out: frozenset[str] = frozenset()) -> dict[str, FileRecord]:
    """Return size and hash of every file but the manifest, after flushing their bytes to the disk."""
    return {
        name: FileRecord(bytes=path.stat().st_size, sha256=file_hash(path, sync=True))
        for name, path in _files(folder)
        if name.split("/")[0] not in left_out
    }


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path != folder / MANIFEST and not is_leftover(name.parts[0]):
            yield name.as_posix(), path


def file_hash(path: Path, *, sync: bool = False) -> str:
    """Return the sha256 of a file; with `sync` after flushing its bytes to the disk."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
        if sync:
            os.fsync(stream.fileno())
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically: to a temporary name, flushed, then renamed."""
    beside = path.with_name(f".{path.name}{BESIDE}")
    with open(beside, "w", encoding="utf-8", opener=_no_link) as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def _no_link(path: str, flags: int) -> int:
    """Open without following links: where others may write too, a link could lead to any file."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def remove(path: Path) -> None:
    """Remove a folder or file, if it exists; a folder is renamed first, so it is never half removed."""
    gone = path if path.suffix == GONE else path.with_name(f".{path.name.strip('.')}{GONE}")
    if gone != path:
        shutil.rmtree(gone, ignore_errors=True)
    if path.is_dir():
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_tree(folder: Path, *, deep: bool = True) -> None:
    """Flush the names inside `folder` to the disk, and those inside its folders."""
    inside = folder.rglob("*") if deep else ()
    for each in [folder, *(path for path in inside if path.is_dir())]:
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""Stage folders on disk: written beside their place, renamed when whole, verified when opened."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rlhf_cli.artifacts.manifest import (
    MANIFEST,
    FileRecord,
    Refusal,
    StageManifest,
    read_manifest,
)

CHUNK = 1 << 20


def work_folder(run: Path, stage: str) -> Path:
    """Where a stage writes until it is whole."""
    return run / f".{stage}.work"


def _old_folder(final: Path) -> Path:
    return final.parent / f".{final.name}.old"


def begin(run: Path, stage: str) -> Path:
    """An empty work folder for `stage`; what an earlier attempt left there is removed."""
    work = work_folder(run, stage)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def publish(work: Path, final: Path, manifest: StageManifest) -> StageManifest:
    """Make `work` the stage folder `final` at once, replacing an older version.

    Files are hashed and fsynced first; a crash at any moment leaves the old version or the new.
    """
    manifest.files = {
        name: FileRecord(bytes=path.stat().st_size, sha256=file_hash(path, sync=True))
        for name, path in _files(work)
    }
    write_text(work / MANIFEST, manifest.seal().to_json())
    for folder in [work, *(p for p in work.rglob("*") if p.is_dir())]:
        sync_folder(folder)
    _swap(work, final)
    return manifest


def _swap(work: Path, final: Path) -> None:
    old = _old_folder(final)
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    work.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(final: Path) -> None:
    """Undo a replacement that was cut between its two renames."""
    old = _old_folder(final)
    if old.exists() and not final.exists():
        old.rename(final)


def open_stage(folder: Path, role: str, *, stage: str | None = None) -> StageManifest:
    """The manifest of a verified stage folder for `role`, or a Refusal with reason and remedy."""
    try:
        manifest = verified(folder)
    except Refusal as refusal:
        raise Refusal(f"{role}: {refusal.found}", refusal.remedy) from refusal
    expected = stage or role
    if manifest.stage != expected:
        raise Refusal(
            f"{role}: {folder} holds the stage {manifest.stage}, not {expected}",
            f"to use its weights all the same, give its model folder {folder / 'model'}",
        )
    return manifest


def verified(folder: Path) -> StageManifest:
    """The manifest, once every file it names has been found with its size and hash."""
    manifest = read_manifest(folder)
    for name, record in manifest.files.items():
        if damage := _damage(folder / name, record):
            raise Refusal(f"{folder / name} {damage}", f"run the stage {manifest.stage} again")
    return manifest


def _damage(path: Path, record: FileRecord) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != record.bytes:
        word = "truncated" if size < record.bytes else "longer than written"
        return f"is {word}: {size} bytes instead of {record.bytes}"
    return None if file_hash(path) == record.sha256 else "was changed after it was written"


def model_folder(folder: Path) -> Path:
    """The model inside a stage folder; a Hugging Face folder or hub id is returned as it is."""
    return folder / "model" if (folder / MANIFEST).is_file() else folder


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            yield path.relative_to(folder).as_posix(), path


def file_hash(path: Path, *, sync: bool = False) -> str:
    """sha256 of a file; with `sync` its bytes are on the disk when this returns."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
        if sync:
            os.fsync(stream.fileno())
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a small file whole: beside its place, fsynced, renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Stage folders on disk: written beside their place, renamed when whole, verified when opened."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_cli.artifacts.manifest import (
    MANIFEST,
    FileRecord,
    Refusal,
    StageManifest,
    read_manifest,
)
from rlhf_cli.config.errors import UserError

CHUNK = 1 << 20
GONE, BESIDE = ".gone", ".tmp"  # ends of names that count for nothing: on the way out, or in
FREE = "free space there or make it writable, then run the same command again"


class NotWritten(UserError):
    """The disk is full, read-only or gone: the run failed, and what was there before still is."""

    code = 1


@contextmanager
def writing(what: Path, remedy: str, *also: type[Exception]) -> Iterator[None]:
    """Tell the system's refusal to write `what` in one line. also: what a library says instead."""
    try:
        yield
    except (OSError, *also) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise NotWritten(f"{what} cannot be written ({reason}); {remedy}") from error


def work_folder(run: Path, stage: str) -> Path:
    """Where a stage writes until it is whole."""
    return run / f".{stage}.work"


def _old_folder(final: Path) -> Path:
    return final.parent / f".{final.name}.old"


def begin(run: Path, stage: str) -> Path:
    """An empty work folder for `stage`; what an earlier attempt left there is removed."""
    work = work_folder(run, stage)
    with writing(work, FREE):
        remove(work)
        work.mkdir(parents=True)
    return work


def publish(
    work: Path, final: Path, manifest: StageManifest, *, left_out: frozenset[str] = frozenset()
) -> StageManifest:
    """Make `work` the stage folder `final` at once, replacing an older version.

    Files are hashed and fsynced first; a crash at any moment leaves the old version or the new.
    From the moment `work` has its manifest, `place` alone can end what was begun. left_out: names in
    `work` that served the attempt only.
    """
    with writing(final, FREE):
        manifest.files = sealed(work, left_out)
        write_text(work / MANIFEST, manifest.seal().to_json())
    place(work, final, left_out=left_out)
    return manifest


def place(work: Path, final: Path, *, left_out: frozenset[str] = frozenset()) -> None:
    """Move a whole `work` to its place."""
    with writing(final, FREE):
        for path in list(work.iterdir()):
            if path.name in left_out or _is_rest(path.name):
                remove(path)
        sync_tree(work)
        _swap(work, final)


def _swap(work: Path, final: Path) -> None:
    old = _old_folder(final)
    remove(old)
    if final.exists():
        final.rename(old)
    work.rename(final)
    sync_tree(final.parent, deep=False)
    remove(old)


def recover(final: Path) -> None:
    """Undo a replacement that was cut between its two renames, or end one that was cut after them."""
    old = _old_folder(final)
    if not old.exists():
        return
    with writing(final, FREE):
        remove(old) if final.exists() else old.rename(final)


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
        if found := damage(folder / name, record):
            raise Refusal(f"{folder / name} {found}", f"run the stage {manifest.stage} again")
    return manifest


def damage(path: Path, record: FileRecord, *, hashed: bool = True) -> str | None:
    """How a file differs from its record, if it does; without `hashed` by its size alone."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != record.bytes:
        word = "truncated" if size < record.bytes else "longer than written"
        return f"is {word}: {size} bytes instead of {record.bytes}"
    try:
        same = not hashed or file_hash(path) == record.sha256
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if same else "was changed after it was written"


def model_folder(folder: Path) -> Path:
    """The model inside a stage folder; a Hugging Face folder or hub id is returned as it is."""
    return folder / "model" if (folder / MANIFEST).is_file() else folder


def sealed(folder: Path, left_out: frozenset[str] = frozenset()) -> dict[str, FileRecord]:
    """Size and hash of every file but the manifest; their bytes are on the disk when this returns."""
    return {
        name: FileRecord(bytes=path.stat().st_size, sha256=file_hash(path, sync=True))
        for name, path in _files(folder)
        if name.split("/")[0] not in left_out
    }


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path != folder / MANIFEST and not _is_rest(name.parts[0]):
            yield name.as_posix(), path


def _is_rest(name: str) -> bool:
    return name.startswith(".") and name.endswith((GONE, BESIDE))


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
    beside = path.with_name(f".{path.name}{BESIDE}")
    with beside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def remove(path: Path) -> None:
    """Remove a folder or file, if it is there; a folder loses its name at once, whatever happens then."""
    gone = path if path.suffix == GONE else path.with_name(f".{path.name.strip('.')}{GONE}")
    if gone != path:
        shutil.rmtree(gone, ignore_errors=True)
    if path.is_dir():
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_tree(folder: Path, *, deep: bool = True) -> None:
    """Make the names inside `folder` durable, and those inside its folders."""
    inside = folder.rglob("*") if deep else ()
    for each in [folder, *(path for path in inside if path.is_dir())]:
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

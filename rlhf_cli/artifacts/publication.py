"""Publishing a finished stage: atomically, and the version it replaces is kept.

    <run>/sft                      the finished stage
    <run>/.sft.old                 the former version, between two renames
    <run>/.sft.replaced/00000002   made with other configurations; the newest has the highest number

A crash at any moment leaves the older version or the new one; `recover` completes or undoes the
renames.
"""

from pathlib import Path

from rlhf_cli.artifacts.fingerprint import Fingerprint
from rlhf_cli.artifacts.layout import MANIFEST, is_leftover
from rlhf_cli.artifacts.manifest import ArtifactError, RepairableError, StageManifest, read_manifest
from rlhf_cli.artifacts.store import (
    FREE,
    file_records,
    remove,
    sync_tree,
    verified,
    write_errors,
    write_text,
)

NOTHING: frozenset[str] = frozenset()


def publish(
    work: Path,
    final: Path,
    manifest: StageManifest,
    *,
    left_out: frozenset[str] = NOTHING,
    keep: int = 0,
) -> StageManifest:
    """Make `work` the stage folder `final` atomically; keep the `keep` newest older versions.

    Files are hashed and flushed first. Once `work` has its manifest, only `rename_to_final` is left to do.
    left_out: names in `work` that only the attempt needed.
    """
    with write_errors(final, FREE):
        manifest.files = file_records(work, left_out)
        write_text(work / MANIFEST, manifest.seal().to_json())
    rename_to_final(work, final, left_out=left_out, keep=keep)
    return manifest


def rename_to_final(
    work: Path, final: Path, *, left_out: frozenset[str] = NOTHING, keep: int = 0
) -> None:
    """Move a complete `work` to its final name."""
    with write_errors(final, FREE):
        for path in list(work.iterdir()):
            if path.name in left_out or is_leftover(path.name):
                remove(path)
        sync_tree(work)
    replace_stage(work, final, keep=keep)


def replace_stage(folder: Path, final: Path, *, keep: int) -> None:
    """Move a stage to its final name, and keep the version it replaces."""
    recover(final, keep=keep)
    with write_errors(final, FREE):
        if final.exists():
            final.rename(_old_folder(final))
        folder.rename(final)
        sync_tree(final.parent, deep=False)
    recover(final, keep=keep)


def recover(final: Path, *, keep: int) -> None:
    """Undo a replacement that was interrupted between its two renames, or complete one after them."""
    old = _old_folder(final)
    if not old.exists():
        return
    with write_errors(final, FREE):
        _keep_version(old, final, keep) if final.exists() else old.rename(final)


def older_versions(final: Path) -> list[Path]:
    """Return the older versions of a stage, newest first."""
    return sorted(_versions_folder(final).glob("[0-9]*"), reverse=True)


def find_version(final: Path, made_of: Fingerprint) -> tuple[Path, StageManifest] | None:
    """Return the older version with exactly this fingerprint, where an intact one exists."""
    for folder in older_versions(final):
        try:
            if made_of.equals(read_manifest(folder)):
                return folder, verified(folder)
        except RepairableError:
            raise
        except ArtifactError:
            continue
    return None


def _old_folder(final: Path) -> Path:
    return final.parent / f".{final.name}.old"


def _versions_folder(final: Path) -> Path:
    return final.parent / f".{final.name}.replaced"


def _keep_version(old: Path, final: Path, keep: int) -> None:
    """Give `old` the next number, and remove all but the `keep` newest."""
    aside, newest = _versions_folder(final), next(iter(older_versions(final)), None)
    if keep == 0:
        remove(aside)
        remove(old)
        return
    aside.mkdir(exist_ok=True)
    old.rename(aside / f"{int(newest.name) + 1 if newest else 1:08}")
    sync_tree(final.parent, deep=False)
    kept = older_versions(final)[:keep]
    for path in list(aside.iterdir()):
        if path not in kept:
            remove(path)

"""Finished stages that another configuration replaces: kept as versions, and restored."""

import errno
import os
from pathlib import Path

import pytest

from rlhf_cli.artifacts import store
from rlhf_cli.artifacts.fingerprint import Fingerprint
from rlhf_cli.artifacts.manifest import ArtifactError, RepairableError, read_manifest
from rlhf_cli.artifacts.publication import (
    find_version,
    older_versions,
    publish,
    recover,
    replace_stage,
)
from rlhf_cli.artifacts.store import create_work_folder, open_stage
from tests.support.artifacts import fingerprint, manifest
from tests.support.file_system_faults import full, killed


def fingerprint_of(lr: float) -> Fingerprint:
    return fingerprint(config={"sft.lr": lr})


def publish_stage(run: Path, lr: float, keep: int = 1) -> Path:
    """Publish a stage with this learning rate; return its folder."""
    work, record, made_of = create_work_folder(run, "sft"), manifest(), fingerprint_of(lr)
    (work / "model").mkdir()
    (work / "model" / "x").write_text(str(lr))
    record.config, record.data = made_of.config, made_of.data
    record.parents = made_of.parents
    publish(work, run / "sft", record, keep=keep)
    return run / "sft"


def learning_rate_of(folder: Path) -> float:
    open_stage(folder, "sft")
    return float((folder / "model" / "x").read_text())


@pytest.mark.parametrize(
    ("keep", "left"), [(0, []), (1, [0.3]), (2, [0.3, 0.2]), (9, [0.3, 0.2, 0.1])]
)
def test_the_newest_older_versions_are_kept(tmp_path, keep, left):
    for lr in (0.1, 0.2, 0.3, 0.4):
        final = publish_stage(tmp_path, lr, keep)
    assert learning_rate_of(final) == 0.4
    assert [learning_rate_of(folder) for folder in older_versions(final)] == left
    aside = [".sft.replaced"] if keep else []
    assert sorted(path.name for path in tmp_path.iterdir()) == [*aside, "sft"]


def test_an_older_version_is_found_by_its_fingerprint_and_exchanged(tmp_path):
    publish_stage(tmp_path, 0.1)
    final = publish_stage(tmp_path, 0.2)
    assert find_version(final, fingerprint_of(0.3)) is None
    for lr in (0.1, 0.2, 0.1):
        folder, found = find_version(final, fingerprint_of(lr))
        assert found.digest == read_manifest(folder).digest
        replace_stage(folder, final, keep=1)
        assert learning_rate_of(final) == lr
        assert len(older_versions(final)) == 1


@pytest.mark.parametrize("fault", [killed, full])
def test_a_fault_at_any_point_of_an_exchange_keeps_both_versions(tmp_path, fault):
    numbers = iter(range(10**6))

    def start() -> Path:
        run = tmp_path / str(next(numbers))
        run.mkdir()
        publish_stage(run, 0.1)
        publish_stage(run, 0.2)
        return run

    def exchange(run: Path) -> None:
        replace_stage(find_version(run / "sft", fingerprint_of(0.1))[0], run / "sft", keep=1)

    for run in fault(start, exchange):
        recover(run / "sft", keep=1)
        there = {
            learning_rate_of(run / "sft"),
            *(learning_rate_of(folder) for folder in older_versions(run / "sft")),
        }
        assert there == {0.1, 0.2}
        if learning_rate_of(run / "sft") == 0.2:
            exchange(run)
        assert learning_rate_of(run / "sft") == 0.1
        assert [learning_rate_of(folder) for folder in older_versions(run / "sft")] == [0.2]


def test_a_damaged_version_is_not_restored_and_an_unreadable_one_is_refused(tmp_path, monkeypatch):
    publish_stage(tmp_path, 0.1)
    final = publish_stage(tmp_path, 0.2)
    (older,) = older_versions(final)
    monkeypatch.setattr(store, "file_hash", read_error)
    with pytest.raises(RepairableError, match="cannot be read"):
        find_version(final, fingerprint_of(0.1))
    monkeypatch.undo()
    (older / "model" / "x").write_text("0.9")
    assert find_version(final, fingerprint_of(0.1)) is None


def read_error(path, **options):
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))


def test_a_file_with_a_read_error_is_not_reported_as_damaged(tmp_path, monkeypatch):
    final = publish_stage(tmp_path, 0.1)
    monkeypatch.setattr(store, "file_hash", read_error)
    message = r"sft: .*model/x cannot be read \(Input/output error\); make it readable, then run"
    with pytest.raises(RepairableError, match=message):
        open_stage(final, "sft")
    monkeypatch.undo()
    assert learning_rate_of(final) == 0.1


def test_a_manifest_with_a_read_error_is_not_reported_as_damaged(tmp_path, monkeypatch):
    final = publish_stage(tmp_path, 0.1)
    monkeypatch.setattr(Path, "read_text", read_error)
    with pytest.raises(
        RepairableError, match=r"manifest\.json cannot be read \(Input/output error\)"
    ):
        read_manifest(final)


@pytest.mark.parametrize(
    "name", ["special_tokens_map.json", "additional_chat_templates/default.jinja", "link"]
)
def test_a_file_added_to_a_model_is_refused_by_name(tmp_path, name):
    """Such a file could change EOS or the template; without it the stage opens again."""
    final = publish_stage(tmp_path, 0.1)
    (final / "notes.txt").write_text("not read")
    (final / "model" / ".nfs0001").write_text("not read")
    assert learning_rate_of(final) == 0.1
    added = final / "model" / name
    added.parent.mkdir(exist_ok=True)
    added.symlink_to(tmp_path) if name == "link" else added.write_text("x")
    with pytest.raises(RepairableError, match=f"{name} was added after the stage was finished"):
        open_stage(final, "sft")
    added.unlink()
    assert learning_rate_of(final) == 0.1


def test_a_manifest_nested_too_deep_is_refused_in_one_line(tmp_path):
    final = publish_stage(tmp_path, 0.1)
    (final / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read \(nested too deep\)"):
        read_manifest(final)


def test_the_digest_of_a_stage_covers_its_model_and_no_times(tmp_path):
    digests = []
    for lr, hour in ((0.1, "10:00"), (0.1, "11:00"), (0.2, "11:00")):
        work, record = create_work_folder(tmp_path, "sft"), manifest()
        (work / "model").mkdir()
        (work / "model" / "x").write_text(str(lr))
        (work / "metrics.jsonl").write_text(hour)
        record.started = record.finished = hour
        digests.append(publish(work, tmp_path / "sft", record).digest)
    assert digests[0] == digests[1] != digests[2]

"""Stage folders: complete or absent, and refused in one line when damaged."""

import json
import os

import pytest

from rlhf_cli.artifacts import store
from rlhf_cli.artifacts.layout import work_folder
from rlhf_cli.artifacts.manifest import ArtifactError, read_manifest
from rlhf_cli.artifacts.publication import publish, recover
from rlhf_cli.artifacts.store import create_work_folder, model_folder, open_stage, write_text
from tests.support.artifacts import manifest


def publish_stage(run, content: str = "weights"):
    """Publish a stage folder with one file in model/; return it."""
    work = create_work_folder(run, "sft")
    (work / "model").mkdir()
    (work / "model" / "model.safetensors").write_text(content)
    publish(work, run / "sft", manifest())
    return run / "sft"


def test_a_published_stage_opens(tmp_path):
    folder = publish_stage(tmp_path)
    opened = open_stage(folder, "sft")
    assert opened.metrics == {"loss": 0.25}
    assert opened.files["model/model.safetensors"].bytes == 7
    assert model_folder(folder) == folder / "model"
    assert not work_folder(tmp_path, "sft").exists()


def test_a_new_version_replaces_the_old_one_completely(tmp_path):
    first = publish_stage(tmp_path, "old")
    digest = read_manifest(first).digest
    publish_stage(tmp_path, "new")
    assert (first / "model" / "model.safetensors").read_text() == "new"
    assert read_manifest(first).digest != digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sft"]


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_crash_between_the_renames_loses_neither_version(tmp_path, monkeypatch, crash_at):
    final, calls, rename = publish_stage(tmp_path, "old"), [], os.rename

    def crashing(source, target):
        calls.append(source)
        if len(calls) == crash_at:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(store.os, "rename", crashing)
    with pytest.raises(KeyboardInterrupt):
        publish_stage(tmp_path, "new")
    monkeypatch.undo()
    recover(final, keep=0)
    assert (final / "model" / "model.safetensors").read_text() == "old"
    open_stage(final, "sft")


def damage_missing(folder):
    (folder / "model" / "model.safetensors").unlink()


def damage_truncated(folder):
    (folder / "model" / "model.safetensors").write_text("wei")


def damage_changed(folder):
    (folder / "model" / "model.safetensors").write_text("WEIGHTS")


def damage_edited(folder):
    content = json.loads((folder / "manifest.json").read_text())
    content["metrics"]["loss"] = 0.01
    (folder / "manifest.json").write_text(json.dumps(content))


def damage_garbled(folder):
    (folder / "manifest.json").write_text('{"stage": "sft"')


def damage_old_format(folder):
    (folder / "manifest.json").write_text('{"stage": "sft"}')


def damage_unfinished(folder):
    (folder / "manifest.json").unlink()


def damage_working(folder):
    found = read_manifest(folder)
    found.status = "at work"
    (folder / "manifest.json").write_text(found.seal().to_json())


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (damage_missing, "model.safetensors is missing"),
        (damage_truncated, "is truncated: 3 bytes instead of 7"),
        (damage_changed, "was changed after it was written"),
        (damage_edited, "manifest.json was edited after it was written"),
        (damage_garbled, "manifest.json cannot be read"),
        (damage_old_format, "fields missing or unknown"),
        (damage_unfinished, "has no manifest.json"),
        (damage_working, "is not finished (status at work)"),
    ],
)
def test_damage_is_refused_with_reason_and_remedy(tmp_path, damage, found):
    folder = publish_stage(tmp_path)
    damage(folder)
    with pytest.raises(ArtifactError) as error:
        open_stage(folder, "sft")
    assert found in str(error.value)
    assert error.value.remedy
    assert "\n" not in str(error.value)


def test_write_text_does_not_follow_a_symbolic_link(tmp_path):
    linked_file = tmp_path / "precious"
    linked_file.write_text("precious")
    (tmp_path / "..date.tmp").symlink_to(linked_file)
    with pytest.raises(OSError):
        write_text(tmp_path / ".date", "today")
    assert linked_file.read_text() == "precious"


def test_the_wrong_stage_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="holds the stage sft, not rm"):
        open_stage(publish_stage(tmp_path), "rm")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        open_stage(tmp_path / "none", "sft")


def test_a_failed_attempt_does_not_touch_the_finished_stage(tmp_path):
    folder = publish_stage(tmp_path)
    work = create_work_folder(tmp_path, "sft")
    (work / "half").write_text("x")
    open_stage(folder, "sft")
    assert not (create_work_folder(tmp_path, "sft") / "half").exists()

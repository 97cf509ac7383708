"""Checkpoints: a save is atomic, and a damaged checkpoint is refused."""

import itertools
import json
import math
import os
import resource
import signal
from pathlib import Path

import pytest

from rlhf_cli.artifacts import checkpoints
from rlhf_cli.artifacts.manifest import ArtifactError
from rlhf_cli.artifacts.store import WriteError
from tests.support.artifacts import save, truncate
from tests.support.file_system_faults import _in_child, full, killed


def names(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "resume").glob("*"))


def test_a_saved_checkpoint_is_found_with_its_state(tmp_path):
    assert checkpoints.latest(tmp_path, "auto") is None
    folder = save(tmp_path, 120)
    found = checkpoints.latest(tmp_path, "auto")
    assert found is not None
    assert (found.step, found.folder) == (120, folder)
    assert found.state == {"step": 120, "best": [0.5, 120]}
    assert folder == tmp_path / "resume" / "step-00000120"
    assert sorted(p.name for p in folder.iterdir()) == [
        "manifest.json", "model-00001-of-00001.safetensors", "state.json",
    ]  # fmt: skip


def test_the_files_of_a_checkpoint_have_the_permissions_of_the_umask(tmp_path):
    """A library that writes private files does not restrict which users may resume."""
    folder = checkpoints.create(tmp_path, 1)
    (folder / "model.safetensors").touch(mode=0o600)
    before = os.umask(0o027)
    try:
        folder = checkpoints.commit(tmp_path, 1, {}, 1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_floats_of_the_state_are_restored_exactly(tmp_path):
    state = {"a": 0.1 + 0.2, "b": math.inf, "c": -math.inf, "d": math.nan, "e": 5e-324}
    checkpoints.create(tmp_path, 1)
    checkpoints.commit(tmp_path, 1, state, 1)
    found = checkpoints.latest(tmp_path, "auto").state
    assert math.isnan(found.pop("d"))
    assert found == {k: v for k, v in state.items() if k != "d"}


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for step in (3, 20, 100, 5000):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000100", "step-00005000"]
    save(tmp_path, 123456789, keep=1)
    assert names(tmp_path) == ["step-123456789"]
    assert checkpoints.latest(tmp_path, "auto").step == 123456789


def test_an_unfinished_checkpoint_is_ignored_and_removed(tmp_path):
    save(tmp_path, 2)
    half = checkpoints.create(tmp_path, 4)
    (half / "part").write_text("x")
    assert checkpoints.resumable_step(tmp_path, "auto") == 2
    assert checkpoints.latest(tmp_path, "auto").step == 2
    assert names(tmp_path) == ["step-00000002"]


def test_a_checkpoint_that_the_pointer_does_not_name_yet_is_removed(tmp_path):
    """After a kill between the rename and the pointer, the earlier checkpoint is used."""
    save(tmp_path, 2)
    pointer = (tmp_path / "latest.json").read_text()
    save(tmp_path, 4)
    (tmp_path / "latest.json").write_text(pointer)
    assert checkpoints.latest(tmp_path, "auto").step == 2
    assert names(tmp_path) == ["step-00000002"]


def test_without_a_pointer_the_newest_intact_checkpoint_is_used(tmp_path):
    save(tmp_path, 2)
    save(tmp_path, 4)
    (tmp_path / "latest.json").unlink()
    (tmp_path / "resume/step-00000004/state.json").unlink()
    assert checkpoints.latest(tmp_path, "auto").step == 2
    assert json.loads((tmp_path / "latest.json").read_text()) == {"step": 2}


def change_byte(path: Path) -> None:
    path.write_bytes(b"\0" + path.read_bytes()[1:])


def edit_manifest(path: Path) -> None:
    manifest = path.with_name("manifest.json")
    manifest.write_text(manifest.read_text().replace('"step": 4', '"step": 5'))


def truncate_manifest(path: Path) -> None:
    path.with_name("manifest.json").write_text("{")


def remove_file(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    path.parent.rename(path.parents[2] / "elsewhere")


DAMAGES = {
    truncate: "model-00001-of-00001.safetensors is truncated: 49 bytes instead of 50",
    change_byte: "was changed after it was written",
    edit_manifest: "manifest.json was edited after it was written",
    truncate_manifest: "manifest.json cannot be read",
    remove_file: "is missing",
    remove_folder: "step-00000004 is missing",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_the_remedies(tmp_path, damage):
    save(tmp_path, 2)
    folder = save(tmp_path, 4)
    damage(folder / "model-00001-of-00001.safetensors")
    lookups = [checkpoints.latest] + [checkpoints.resumable_step] * (damage is not change_byte)
    for lookup in lookups:
        with pytest.raises(ArtifactError) as error:
            lookup(tmp_path, "auto")
        assert DAMAGES[damage] in str(error.value)
        assert "the last intact one is of step 2: resume=last_valid resumes from it" in str(
            error.value
        )
        assert "\n" not in str(error.value)
    assert checkpoints.resumable_step(tmp_path, "last_valid") == 2
    assert checkpoints.latest(tmp_path, "last_valid").step == 2
    assert checkpoints.latest(tmp_path, "auto").step == 2  # the pointer names step 2 from now on
    assert names(tmp_path) == ["step-00000002"]


def test_without_an_intact_checkpoint_only_resume_never_works(tmp_path):
    folders = [save(tmp_path, 2), save(tmp_path, 4)]
    for folder in folders:
        truncate(folder / "state.json")
    for policy, lookup in itertools.product(
        ("auto", "last_valid"), (checkpoints.latest, checkpoints.resumable_step)
    ):
        with pytest.raises(ArtifactError, match="no checkpoint is intact: resume=never starts"):
            lookup(tmp_path, policy)
    assert checkpoints.resumable_step(tmp_path, "never") is None
    assert checkpoints.latest(tmp_path, "never") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": "x"}', '{"folder": 1}', "\xff"])
def test_an_unreadable_pointer_is_refused(tmp_path, text):
    save(tmp_path, 2)
    (tmp_path / "latest.json").write_text(text, encoding="latin-1")
    with pytest.raises(
        ArtifactError, match=r"latest.json cannot be read; .* of step 2: resume=last_valid"
    ):
        checkpoints.latest(tmp_path, "auto")
    assert checkpoints.latest(tmp_path, "last_valid").step == 2


def test_a_pointer_without_checkpoints_is_refused(tmp_path):
    save(tmp_path, 2)
    checkpoints.remove(tmp_path / "resume")
    for policy in ("auto", "last_valid"):
        with pytest.raises(ArtifactError, match="resume=never"):
            checkpoints.latest(tmp_path, policy)


def test_the_same_step_can_be_saved_again(tmp_path):
    save(tmp_path, 2)
    save(tmp_path, 2, content=b"other")
    found = checkpoints.latest(tmp_path, "auto")
    assert next(found.folder.glob("model*")).read_bytes() == b"other"
    assert names(tmp_path) == ["step-00000002"]


def test_remove_all_leaves_nothing(tmp_path):
    save(tmp_path, 2)
    checkpoints.remove_all(tmp_path)
    checkpoints.remove_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def make_start(tmp_path):
    """Return make_start(*steps); its result makes a new folder with these checkpoints."""
    numbers = itertools.count()

    def make_start(*steps: int, keep: int = 2):
        def start() -> Path:
            work = tmp_path / str(next(numbers)) / "work"
            work.mkdir(parents=True)
            for step in steps:
                save(work, step, keep)
            return work

        return start

    return make_start


@pytest.mark.parametrize(
    ("steps", "keep"), [((), 2), ((1,), 1), ((1, 2), 2), ((3,), 2), ((1, 2), 1)]
)
@pytest.mark.parametrize("fault", [killed, full])
def test_a_fault_at_any_point_of_a_save_leaves_the_old_or_the_new_checkpoint(
    make_start, steps, keep, fault
):
    before = max(steps, default=None)
    seen = set()
    for work in fault(make_start(*steps, keep=keep), lambda work: save(work, 3, keep)):
        foreseen = checkpoints.resumable_step(work, "auto")
        found = checkpoints.latest(work, "auto")
        step = None if found is None else found.step
        assert foreseen == step
        assert step in (before, 3)
        seen.add(step)
        save(work, 3, keep)
        assert checkpoints.latest(work, "auto").step == 3
        assert len(names(work)) == min(keep, len({*steps, 3}))
    assert before in seen


@pytest.mark.parametrize("fault", [killed, full])
def test_a_fault_at_any_point_of_last_valid_leaves_an_intact_checkpoint(make_start, fault):
    def start() -> Path:
        work = make_start(1, 2)()
        truncate(work / "resume/step-00000002/state.json")
        return work

    for work in fault(start, lambda work: checkpoints.latest(work, "last_valid")):
        assert checkpoints.latest(work, "last_valid").step == 1
        assert checkpoints.latest(work, "auto").step == 1


def test_a_kill_at_any_point_of_remove_all_leaves_an_intact_checkpoint_or_none(make_start):
    for work in killed(make_start(1, 2), checkpoints.remove_all):
        found = checkpoints.latest(work, "auto")
        assert found is None or found.step == 2
        checkpoints.remove_all(work)
        assert list(work.iterdir()) == []


def test_a_disk_that_fills_up_within_a_file_keeps_the_earlier_checkpoint(tmp_path, capfd):
    save(tmp_path, 1)

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        checkpoints.create(tmp_path, 2)
        checkpoints.commit(tmp_path, 2, {"long": "x" * 5000}, 2)

    assert _in_child(work) == WriteError.code
    errors = capfd.readouterr().err
    assert "cannot be written (File too large); free space there" in errors
    assert names(tmp_path) == ["step-00000001"]  # the half-written checkpoint is removed
    assert checkpoints.latest(tmp_path, "auto").step == 1


class LibraryError(Exception):
    """An error that a library raises instead of OSError."""


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), LibraryError("full")])
def test_a_file_of_tensors_that_fails_half_written_is_removed(tmp_path, fault):
    path = checkpoints.create(tmp_path, 1) / "policy.safetensors"
    with pytest.raises(WriteError, match=r"policy\.safetensors cannot be written \(.*; free space"):
        with checkpoints.writing_file(path, LibraryError):
            path.write_bytes(b"half")
            raise fault
    assert not path.exists()

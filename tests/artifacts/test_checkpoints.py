"""Checkpoints: the former or the new one, whatever happens, and nothing broken is passed over."""

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


def test_what_was_saved_comes_back(tmp_path):
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


def test_all_files_are_as_readable_as_open_makes_them(tmp_path):
    """A library that writes private files does not decide who may go on."""
    folder = checkpoints.create(tmp_path, 1)
    (folder / "model.safetensors").touch(mode=0o600)
    before = os.umask(0o027)
    try:
        folder = checkpoints.commit(tmp_path, 1, {}, 1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_every_float_comes_back_to_the_last_bit(tmp_path):
    state = {"a": 0.1 + 0.2, "b": math.inf, "c": -math.inf, "d": math.nan, "e": 5e-324}
    checkpoints.create(tmp_path, 1)
    checkpoints.commit(tmp_path, 1, state, 1)
    found = checkpoints.latest(tmp_path, "auto").state
    assert math.isnan(found.pop("d"))
    assert found == {k: v for k, v in state.items() if k != "d"}


def test_the_newest_are_kept(tmp_path):
    for step in (3, 20, 100, 5000):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000100", "step-00005000"]
    save(tmp_path, 123456789, keep=1)
    assert names(tmp_path) == ["step-123456789"]
    assert checkpoints.latest(tmp_path, "auto").step == 123456789


def test_unfinished_leftovers_are_no_checkpoints(tmp_path):
    save(tmp_path, 2)
    half = checkpoints.create(tmp_path, 4)
    (half / "part").write_text("x")
    assert checkpoints.resumable_step(tmp_path, "auto") == 2
    assert checkpoints.latest(tmp_path, "auto").step == 2
    assert names(tmp_path) == ["step-00000002"]


def test_renamed_but_not_yet_pointed_to(tmp_path):
    """Killed between the rename and the pointer: the former one holds, the new one is taken away."""
    save(tmp_path, 2)
    pointer = (tmp_path / "latest.json").read_text()
    save(tmp_path, 4)
    (tmp_path / "latest.json").write_text(pointer)
    assert checkpoints.latest(tmp_path, "auto").step == 2
    assert names(tmp_path) == ["step-00000002"]


def test_killed_before_the_first_pointer(tmp_path):
    save(tmp_path, 2)
    save(tmp_path, 4)
    (tmp_path / "latest.json").unlink()
    (tmp_path / "resume/step-00000004/state.json").unlink()
    assert checkpoints.latest(tmp_path, "auto").step == 2
    assert json.loads((tmp_path / "latest.json").read_text()) == {"step": 2}


def flip(path: Path) -> None:
    path.write_bytes(b"\0" + path.read_bytes()[1:])


def edit(path: Path) -> None:
    manifest = path.with_name("manifest.json")
    manifest.write_text(manifest.read_text().replace('"step": 4', '"step": 5'))


def garble(path: Path) -> None:
    path.with_name("manifest.json").write_text("{")


def lose(path: Path) -> None:
    path.unlink()


def lose_all(path: Path) -> None:
    path.parent.rename(path.parents[2] / "elsewhere")


DAMAGES = {
    truncate: "model-00001-of-00001.safetensors is truncated: 49 bytes instead of 50",
    flip: "was changed after it was written",
    edit: "manifest.json was edited after it was written",
    garble: "manifest.json cannot be read",
    lose: "is missing",
    lose_all: "step-00000004 is missing",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_checkpoint_is_refused_with_the_ways_out(tmp_path, damage):
    save(tmp_path, 2)
    folder = save(tmp_path, 4)
    damage(folder / "model-00001-of-00001.safetensors")
    looks = [checkpoints.latest] + [checkpoints.resumable_step] * (damage is not flip)
    for look in looks:
        with pytest.raises(ArtifactError) as refusal:
            look(tmp_path, "auto")
        assert DAMAGES[damage] in str(refusal.value)
        assert "the last intact one is of step 2: resume=last_valid resumes from it" in str(
            refusal.value
        )
        assert "\n" not in str(refusal.value)
    assert checkpoints.resumable_step(tmp_path, "last_valid") == 2
    assert checkpoints.latest(tmp_path, "last_valid").step == 2
    assert checkpoints.latest(tmp_path, "auto").step == 2  # the choice holds from now on
    assert names(tmp_path) == ["step-00000002"]


def test_none_is_whole(tmp_path):
    folders = [save(tmp_path, 2), save(tmp_path, 4)]
    for folder in folders:
        truncate(folder / "state.json")
    for policy, look in itertools.product(
        ("auto", "last_valid"), (checkpoints.latest, checkpoints.resumable_step)
    ):
        with pytest.raises(ArtifactError, match="no checkpoint is intact: resume=never starts"):
            look(tmp_path, policy)
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


def test_dropping_leaves_nothing(tmp_path):
    save(tmp_path, 2)
    checkpoints.remove_all(tmp_path)
    checkpoints.remove_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def begun(tmp_path):
    """start() makes a fresh folder with checkpoints of the given steps, again and again."""
    numbers = itertools.count()

    def begun(*steps: int, keep: int = 2):
        def start() -> Path:
            work = tmp_path / str(next(numbers)) / "work"
            work.mkdir(parents=True)
            for step in steps:
                save(work, step, keep)
            return work

        return start

    return begun


@pytest.mark.parametrize(
    ("steps", "keep"), [((), 2), ((1,), 1), ((1, 2), 2), ((3,), 2), ((1, 2), 1)]
)
@pytest.mark.parametrize("trouble", [killed, full])
def test_at_every_instant_of_a_save_the_former_or_the_new_one_is_there(begun, steps, keep, trouble):
    before = max(steps, default=None)
    seen = set()
    for work in trouble(begun(*steps, keep=keep), lambda work: save(work, 3, keep)):
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


@pytest.mark.parametrize("trouble", [killed, full])
def test_at_every_instant_of_a_fall_back_a_whole_one_is_there(begun, trouble):
    def start() -> Path:
        work = begun(1, 2)()
        truncate(work / "resume/step-00000002/state.json")
        return work

    for work in trouble(start, lambda work: checkpoints.latest(work, "last_valid")):
        assert checkpoints.latest(work, "last_valid").step == 1
        assert checkpoints.latest(work, "auto").step == 1


def test_at_every_instant_of_a_drop_they_are_whole_or_gone(begun):
    for work in killed(begun(1, 2), checkpoints.remove_all):
        found = checkpoints.latest(work, "auto")
        assert found is None or found.step == 2
        checkpoints.remove_all(work)
        assert list(work.iterdir()) == []


def test_a_disk_that_fills_up_in_the_middle_of_a_file(tmp_path, capfd):
    save(tmp_path, 1)

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        checkpoints.create(tmp_path, 2)
        checkpoints.commit(tmp_path, 2, {"long": "x" * 5000}, 2)

    assert _in_child(work) == WriteError.code
    told = capfd.readouterr().err
    assert "cannot be written (File too large); free space there" in told
    assert names(tmp_path) == ["step-00000001"]  # half a checkpoint takes no room
    assert checkpoints.latest(tmp_path, "auto").step == 1


class LibraryError(Exception):
    """What a library raises instead of OSError."""


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), LibraryError("full")])
def test_half_a_file_of_tensors_goes_at_once(tmp_path, trouble):
    path = checkpoints.create(tmp_path, 1) / "policy.safetensors"
    with pytest.raises(WriteError, match=r"policy\.safetensors cannot be written \(.*; free space"):
        with checkpoints.writing_file(path, LibraryError):
            path.write_bytes(b"half")
            raise trouble
    assert not path.exists()

"""Stages that another configuration replaces, and those that cannot be read: what a run does with them."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from rlhf_cli.artifacts import store
from rlhf_cli.artifacts.manifest import RepairableError
from tests.support import toy_run as toy
from tests.support.toy_run import finished, toy_run


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder in which both stages have been made once."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patched:
        toy.patch(patched)
        patched.chdir(folder)
        toy_run()
    return folder


@pytest.fixture
def run(once, tmp_path, monkeypatch) -> Path:
    """A copy of it, the current folder."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    toy.patch(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys) -> list[str]:
    """What became of each stage, without the times."""
    lines = capsys.readouterr().out.splitlines()
    return [line.split(" (")[0] for line in lines if line.startswith(("sft: ", "rm: "))]


def test_the_old_configuration_brings_its_stages_back_without_training(run, capsys):
    mine = finished(run)
    toy_run(lr=0.2)
    assert finished(run) != mine
    capsys.readouterr()
    toy_run()
    back = "made before with this configuration, put back"
    assert told(capsys) == [f"sft: {back}", f"rm: {back}"]
    assert finished(run) == mine
    toy_run()
    assert told(capsys) == ["sft: unchanged, skipped", "rm: unchanged, skipped"]


def test_keep_replaced_zero_keeps_none(run, capsys):
    toy_run(lr=0.2, keep_replaced=0)
    names = {path.name for path in (run / "runs" / "run").iterdir()}
    assert names == {".date", ".lock", "rm", "sft"}


def test_a_stage_that_cannot_be_read_stops_the_run_and_stays(run, monkeypatch):
    before, read = finished(run), store.file_hash

    def broken(path, **options):
        if path.name == "tokenizer.json":
            raise OSError(errno.EACCES, "Permission denied", str(path))
        return read(path, **options)

    monkeypatch.setattr(store, "file_hash", broken)
    with pytest.raises(
        RepairableError, match=r"sft/model/tokenizer\.json cannot be read \(Permission"
    ):
        toy_run()
    assert finished(run) == before


def test_a_folder_that_cannot_be_looked_into_stops_the_run(run, monkeypatch):
    """Permissions mean nothing to the superuser, so the system is made to refuse."""
    stat = os.stat

    def broken(path, **options):
        if str(path).endswith("sft/model/config.json"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", broken)
    with pytest.raises(RepairableError, match=r"config\.json cannot be read \(Input/output error"):
        toy_run()


def test_a_parent_that_is_made_again_alike_keeps_its_children(run, capsys):
    """Its manifest has another time; its model is the same to the last bit."""
    before = finished(run)
    (run / "runs" / "run" / "sft" / "model" / "tokenizer.json").write_text("{ }")
    toy_run()
    assert told(capsys)[-1] == "rm: unchanged, skipped"
    assert finished(run) == before


def test_a_dry_run_moves_nothing(run, monkeypatch):
    toy_run(lr=0.2)
    before = finished(run)
    monkeypatch.setattr(
        toy.driver, "run_workers", lambda job, runtime: _Done(json.loads(job.read_text()))
    )
    toy_run(dry_run=True)
    assert finished(run) == before
    assert _Done.inputs["sft"].endswith(".sft.replaced/00000001")


class _Done:
    """An outcome that keeps what the worker was given."""

    inputs: dict[str, str] = {}
    code, interrupted = 0, False

    def __init__(self, job: dict):
        type(self).inputs.update(job["inputs"])

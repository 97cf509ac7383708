"""Stages that another configuration replaces, and stages that cannot be read."""

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
    """Return a folder in which both stages have been made once."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patched:
        toy.patch(patched)
        patched.chdir(folder)
        toy_run()
    return folder


@pytest.fixture
def run(once, tmp_path, monkeypatch) -> Path:
    """Return a copy of it, which is the working folder."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    toy.patch(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stage_lines(capsys) -> list[str]:
    """Return the printed outcome of each stage, without the times."""
    lines = capsys.readouterr().out.splitlines()
    return [line.split(" (")[0] for line in lines if line.startswith(("sft: ", "rm: "))]


def test_the_old_configuration_restores_its_stages_without_training(run, capsys):
    before = finished(run)
    toy_run(lr=0.2)
    assert finished(run) != before
    capsys.readouterr()
    toy_run()
    back = "made before with this configuration, put back"
    assert stage_lines(capsys) == [f"sft: {back}", f"rm: {back}"]
    assert finished(run) == before
    toy_run()
    assert stage_lines(capsys) == ["sft: unchanged, skipped", "rm: unchanged, skipped"]


def test_keep_replaced_zero_keeps_no_replaced_stages(run, capsys):
    toy_run(lr=0.2, keep_replaced=0)
    names = {path.name for path in (run / "runs" / "run").iterdir()}
    assert names == {".date", ".lock", "rm", "sft", "report.html"}


def test_a_stage_with_a_read_error_stops_the_run_and_is_kept(run, monkeypatch):
    before, read = finished(run), store.file_hash

    def failing(path, **options):
        if path.name == "tokenizer.json":
            raise OSError(errno.EACCES, "Permission denied", str(path))
        return read(path, **options)

    monkeypatch.setattr(store, "file_hash", failing)
    with pytest.raises(
        RepairableError, match=r"sft/model/tokenizer\.json cannot be read \(Permission"
    ):
        toy_run()
    assert finished(run) == before


def test_a_folder_that_cannot_be_read_stops_the_run(run, monkeypatch):
    """The error is injected, because permissions do not apply to the superuser."""
    stat = os.stat

    def failing(path, **options):
        if str(path).endswith("sft/model/config.json"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(RepairableError, match=r"config\.json cannot be read \(Input/output error"):
        toy_run()


def test_a_parent_that_is_made_again_unchanged_keeps_its_children(run, capsys):
    """Its manifest has other times, and its model is equal bit for bit."""
    before = finished(run)
    (run / "runs" / "run" / "sft" / "model" / "tokenizer.json").write_text("{ }")
    toy_run()
    assert stage_lines(capsys)[-1] == "rm: unchanged, skipped"
    assert finished(run) == before


def test_a_dry_run_does_not_restore_replaced_stages(run, monkeypatch):
    toy_run(lr=0.2)
    before = finished(run)
    monkeypatch.setattr(
        toy.driver, "run_workers", lambda job, runtime: _Done(json.loads(job.read_text()))
    )
    toy_run(dry_run=True)
    assert finished(run) == before
    assert _Done.inputs["sft"].endswith(".sft.replaced/00000001")


class _Done:
    """An outcome that records the inputs of the worker."""

    inputs: dict[str, str] = {}
    code, interrupted = 0, False

    def __init__(self, job: dict):
        type(self).inputs.update(job["inputs"])

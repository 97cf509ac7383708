"""Every call that changes the disk fails once and kills once; the next run gives the same result.

The runs are those of toy_run.py, a stage that saves after every step: from nothing, over a stage
that another configuration made, and back to that one. Some calls are tried always, all of them by
the slow test.
"""

import os
import shutil
from pathlib import Path

import pytest

from rlhf_cli.config.errors import UserError
from tests.support import toy_run as toy
from tests.support.file_system_faults import (
    CALLS,
    KILLED,
    TOLD,
    at_call,
    end,
    every_instant,
    fail_to_write,
)
from tests.support.toy_run import finished, toy_run

RATE, OTHER_RATE, STAGE = 0.1, 0.2, ("sft",)
UNCLEAR = 71
HISTORIES = {"returns": (RATE, OTHER_RATE), "replaces": (OTHER_RATE,), "nothing": ()}
ACTS = {"kill": (end, {KILLED}), "error": (fail_to_write, {0, TOLD})}


@pytest.fixture(scope="module")
def histories(tmp_path_factory):
    """Return a folder per history, and one per learning rate without faults."""
    place = tmp_path_factory.mktemp("histories")
    with pytest.MonkeyPatch.context() as patched:
        toy.patch(patched)
        for name, rates in (HISTORIES | {"mine": (RATE,), "other": (OTHER_RATE,)}).items():
            (place / name).mkdir()
            patched.chdir(place / name)
            for lr in rates:
                toy_run(lr=lr, stages=STAGE)
    return place


@pytest.fixture(autouse=True)
def toy_stages(monkeypatch):
    toy.patch(monkeypatch)


def run_with_clear_errors(folder: Path) -> None:
    """Run the command in a child; a message with an error number counts as unclear."""
    os.chdir(folder)
    try:
        toy_run(lr=RATE, stages=STAGE)
    except UserError as error:
        if "Errno" in str(error) or "unexpected" in str(error):
            print(error)
            os._exit(UNCLEAR)
        raise


def count_disturbed_runs(histories: Path, history, kind, act, monkeypatch, numbers=None) -> int:
    """Disturb a run, start it again, return to the replaced stage; return the number of faults."""
    (act, codes), tried = ACTS[act], 0
    mine, other = finished(histories / "mine"), finished(histories / "other")
    assert mine != other

    def start() -> Path:
        folder = histories / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(histories / history, folder)
        return folder

    for folder in every_instant(
        start, run_with_clear_errors, act, codes, arm=at_call(kind), numbers=numbers
    ):
        monkeypatch.chdir(folder)
        toy_run(lr=RATE, stages=STAGE)
        assert finished(folder) == mine
        expected = {".lock", ".date", "sft", "report.html"}
        if history != "nothing":
            with monkeypatch.context() as only:  # nothing is trained again
                only.setattr(toy.driver, "run_workers", None)
                toy_run(lr=OTHER_RATE, stages=STAGE)
            assert finished(folder) == other
            expected |= {".sft.replaced"}
        left = {path.name for path in (folder / "runs" / "run").iterdir()}
        assert {name for name in left if not name.endswith(".gone")} == expected
        tried += 1
    return tried


@pytest.mark.parametrize(
    ("history", "kind", "act", "number"),
    [
        ("nothing", "rename", "error", 9),
        ("nothing", "fsync", "kill", 11),
        ("replaces", "rename", "kill", 18),
        ("replaces", "unlink", "error", 4),
        ("returns", "rename", "kill", 2),
        ("returns", "mkdir", "error", 1),
    ],
)
def test_a_failing_or_killed_file_system_call_changes_no_result(
    history, kind, act, number, histories, monkeypatch
):
    assert count_disturbed_runs(histories, history, kind, act, monkeypatch, [number]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("act", ACTS)
def test_no_failing_or_killed_file_system_call_changes_a_result(
    history, kind, act, histories, monkeypatch
):
    tried = count_disturbed_runs(histories, history, kind, act, monkeypatch)
    print(f"{history}, {kind}, {act}: {tried} calls")
    assert tried or history == "returns"  # where nothing has to be removed

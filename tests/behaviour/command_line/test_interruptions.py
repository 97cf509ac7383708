"""Killed stages and full disks: the next run resumes, and nothing is lost."""

import json
import subprocess
import sys

import pytest

from tests.support.command_line import done, manifest, ran, refused


def interrupted(rlhf, how: str = "save-killed@3", *words: str):
    """Return the work folder of an sft that was killed after its third checkpoint."""
    refused(rlhf, "stage=sft", f"tracking.project={how}", *words, code=1)
    return rlhf.folder / "runs/default/.sft.work"


def attempt_starts(rlhf) -> list[int]:
    """Return the first step of the attempt that made each step of the finished sft."""
    rows = (rlhf.folder / "runs/default/sft/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    return [json.loads(row)["began"] for row in rows]


def test_a_killed_stage_resumes_from_its_last_checkpoint(rlhf):
    work = interrupted(rlhf)
    started = json.loads((work / "attempt.json").read_text())["started"]
    output = done(rlhf, "stage=sft", "runtime.num_threads=1")
    assert output.count("resuming from step 3") == 2  # in the plan, and where it runs
    assert attempt_starts(rlhf) == [1, 1, 1, 4, 4, 4, 4]
    assert manifest(rlhf, "sft")["started"] == started
    assert not work.exists()
    published = {p.name for p in (rlhf.folder / "runs/default/sft").iterdir()}
    left_out = {"attempt.json", "resume", "latest.json", "job.json", "result.json", "failure.json"}
    assert not published & left_out
    assert ran(done(rlhf, "stage=sft")) == []


@pytest.mark.slow
def test_a_stage_killed_several_times_resumes_each_time(rlhf):
    for step in (2, 3, 6):
        interrupted(rlhf, f"save-killed@{step}")
    done(rlhf, "stage=sft")
    assert attempt_starts(rlhf) == [1, 1, 3, 4, 4, 4, 7]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sft.epochs=3", "starting over: sft.epochs changed 2 -> 3"),
        pytest.param(
            "tiny_world.demonstrations=1400",
            "starting over: tiny_world.demonstrations changed",
            marks=pytest.mark.slow,
        ),
        ("resume=never", "starting over: resume=never"),
    ],
)
def test_a_changed_stage_or_resume_never_starts_over(rlhf, word, expected):
    interrupted(rlhf)
    assert expected in done(rlhf, "stage=sft", word)
    assert attempt_starts(rlhf) == [1] * 7


def test_a_stage_killed_before_its_first_checkpoint_starts_over(rlhf):
    interrupted(rlhf, "none-killed@3")
    assert "interrupted before its first save" in done(rlhf, "stage=sft")
    assert attempt_starts(rlhf) == [1] * 7


def test_an_interrupted_attempt_is_kept_while_another_configuration_is_used(rlhf, after_a_run):
    """The attempt is of sft.epochs=3, while the finished stage of sft.epochs=2 stays up to date."""
    interrupted(rlhf, "save-killed@3", "sft.epochs=3")
    assert ran(done(rlhf)) == []
    assert "resuming from step 3" in done(rlhf, "stage=sft", "sft.epochs=3")


def test_a_damaged_checkpoint_is_refused_and_last_valid_skips_it(rlhf):
    state = interrupted(rlhf) / "resume/step-00000003/state.json"
    state.write_bytes(state.read_bytes()[:-1])
    message = refused(rlhf, "stage=sft")
    assert "step-00000003/state.json is truncated" in message
    assert (
        "of step 2: resume=last_valid resumes from it, resume=never starts the stage from scratch"
        in message
    )
    assert "resuming from step 2" in done(rlhf, "stage=sft", "resume=last_valid")
    assert attempt_starts(rlhf) == [1, 1, 3, 3, 3, 3, 3]


def test_a_checkpoint_with_another_content_is_refused_by_the_worker(rlhf):
    state = interrupted(rlhf) / "resume/step-00000003/state.json"
    state.write_bytes(state.read_bytes().replace(b"0.5", b"0.6"))
    message = refused(rlhf, "stage=sft", code=1)
    assert "state.json was changed after it was written" in message
    refused(rlhf, "stage=sft", code=1)  # the checkpoint is kept
    done(rlhf, "stage=sft", "resume=last_valid")


def test_without_an_intact_checkpoint_only_resume_never_works(rlhf):
    work = interrupted(rlhf)
    for state in work.glob("resume/*/state.json"):
        state.unlink()
    for policy in ("auto", "last_valid"):
        message = refused(rlhf, "stage=sft", f"resume={policy}")
        assert "no checkpoint is intact: resume=never starts the stage from scratch" in message
    done(rlhf, "stage=sft", "resume=never")
    assert attempt_starts(rlhf) == [1] * 7


def test_a_stage_killed_before_its_last_rename_is_only_renamed(rlhf, whole_run):
    done(rlhf, "stage=sft")
    run = rlhf.folder / "runs/default"
    (run / "sft").rename(run / ".sft.work")
    output = done(rlhf, "stage=sft")
    assert "finished, only the final rename is left" in output
    assert attempt_starts(rlhf) == [1] * 7
    assert ran(done(rlhf, "stage=sft")) == []


def test_a_dry_run_does_not_change_an_interrupted_attempt(rlhf):
    work = interrupted(rlhf)
    before = {p: p.stat().st_mtime_ns for p in work.rglob("*")}
    done(rlhf, "dry_run=true", "stage=sft")
    assert before == {p: p.stat().st_mtime_ns for p in work.rglob("*")}


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
import os
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "room", [0, 1200, pytest.param(200, marks=SLOW), pytest.param(4000, marks=SLOW)]
)
def test_a_full_disk_is_refused_in_one_line_and_keeps_the_finished_stage(after_a_run, room):
    """No file may grow beyond `room` bytes, so writing fails at another point each time."""
    rlhf = after_a_run
    before = manifest(rlhf, "sft")
    command = rlhf._command(["run", "stage=sft", "sft.epochs=9", "tracking.project=save-none"])
    found = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(room), *command[1:]], cwd=rlhf.folder,
        env=rlhf._env({"PYTHONDONTWRITEBYTECODE": "1"}), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    assert found.stderr.count("\n") == 1, found.stderr
    assert "cannot be written (File too large)" in found.stderr
    assert manifest(rlhf, "sft") == before
    assert ran(done(rlhf, "stage=sft", "sft.epochs=9")) == ["sft"]


def test_a_run_folder_that_cannot_be_created_is_refused_in_one_line(rlhf):
    (rlhf.folder / "runs").write_text("a file")
    message = refused(rlhf, code=1)
    assert "runs/default cannot be written (Not a directory)" in message

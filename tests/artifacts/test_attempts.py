"""Interrupted attempts: resumed when nothing changed, and published without loss at any point."""

import errno
import itertools
import json
from pathlib import Path

import pytest

from rlhf_cli.artifacts import attempts, checkpoints
from rlhf_cli.artifacts.attempts import UNPUBLISHED, Attempt, find_attempt
from rlhf_cli.artifacts.layout import work_folder
from rlhf_cli.artifacts.manifest import ArtifactError, RepairableError
from rlhf_cli.artifacts.publication import publish, recover, rename_to_final
from rlhf_cli.artifacts.store import file_records, open_stage
from tests.support.artifacts import fingerprint, manifest, save, truncate
from tests.support.file_system_faults import full, killed

MINE = fingerprint()


def start_attempt(run: Path, *, made_of=MINE, policy="auto") -> tuple[Attempt, Path, str]:
    attempt = find_attempt(run, "sft", made_of, policy)
    return attempt, *attempts.start(run, "sft", made_of, attempt)


def interrupted(run: Path, step: int | None = 3) -> Path:
    """Return a work folder as a killed worker leaves it."""
    _, work, _ = start_attempt(run)
    (work / "model").mkdir()
    (work / "ranks").mkdir()
    for name in ("metrics.jsonl", "samples.jsonl", "job.json", "result.json", "failure.json",
                 "traceback-1.txt", "offending.json", ".config.json.tmp", "config.json",
                 "model/x.safetensors"):  # fmt: skip
        (work / name).write_text("{}")
    if step is not None:
        save(work, step)
    return work


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_first_attempt_has_an_empty_description(tmp_path):
    attempt, work, started = start_attempt(tmp_path)
    assert attempt == Attempt()
    assert attempt.description == ""
    assert files(work) == {"attempt.json"}
    assert json.loads((work / "attempt.json").read_text())["started"] == started


def test_an_unchanged_attempt_resumes_and_keeps_its_files(tmp_path):
    interrupted(tmp_path, step=120)
    stored = tmp_path / ".sft.work" / "attempt.json"
    stored.write_text(stored.read_text().replace('"started": "2', '"started": "1'))
    attempt, work, started = start_attempt(tmp_path)
    assert attempt.description == "resuming from step 120"
    assert started.startswith("1")
    made = {"metrics.jsonl", "samples.jsonl", "model", "resume", "latest.json", "config.json"}
    assert files(work) == {*made, "attempt.json"}


def test_an_attempt_without_a_checkpoint_starts_over(tmp_path):
    interrupted(tmp_path, step=None)
    attempt, work, _ = start_attempt(tmp_path)
    assert attempt.description == "interrupted before its first save"
    assert files(work) == {"attempt.json"}


@pytest.mark.parametrize(
    ("changed", "policy", "expected_reason"),
    [
        ({"config": {"sft.lr": 0.5, "seed": 1}}, "auto", "sft.lr changed 1.0 -> 0.5"),
        ({"parents": {"sft": "e"}}, "whole", "parent sft changed"),
        ({"data": {"data.prompts": {"a": "2"}}}, "auto", "data.prompts: a was edited"),
        ({"version": "1"}, "auto", "rlhf changed 0 -> 1"),
        ({}, "never", "resume=never"),
    ],
)
def test_a_changed_attempt_starts_over_with_the_reason(tmp_path, changed, policy, expected_reason):
    interrupted(tmp_path)
    attempt, work, _ = start_attempt(tmp_path, made_of=fingerprint(**changed), policy=policy)
    assert attempt.description.startswith(f"starting over: {expected_reason}")
    assert files(work) == {"attempt.json"}
    assert find_attempt(tmp_path, "sft", fingerprint(**changed), "auto").mismatch == ""


def test_a_replaced_attempt_resumes_when_its_configuration_returns(tmp_path):
    """The checkpoints of both configurations are kept when one key is changed and restored."""
    other = fingerprint(config={"sft.lr": 0.5, "seed": 1})
    save(interrupted(tmp_path, step=3), 4)
    attempt, work, _ = start_attempt(tmp_path, made_of=other)
    assert str(tmp_path / ".sft.given-up") in attempt.description
    save(work, 9)
    for made_of, step in ((MINE, 4), (other, 9), (MINE, 4)):
        attempt, work, _ = start_attempt(tmp_path, made_of=made_of)
        assert attempt.description == f"resuming from step {step}"
        assert checkpoints.latest(work, "auto").step == step
    attempts.remove_parked(tmp_path, "sft")
    assert files(tmp_path) == {".sft.work"}


def test_an_attempt_without_a_checkpoint_is_not_set_aside(tmp_path):
    interrupted(tmp_path, step=None)
    start_attempt(tmp_path, made_of=fingerprint(parents={"sft": "e"}))
    assert files(tmp_path) == {".sft.work"}


@pytest.mark.parametrize("text", ["", "{", "{}", '{"made_of": {"config": 1}}', "[1]"])
def test_an_unreadable_attempt_with_checkpoints_is_refused(tmp_path, text):
    (interrupted(tmp_path) / "attempt.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"attempt\.json cannot be read.*resume=never"):
        start_attempt(tmp_path)
    _, work, _ = start_attempt(tmp_path, policy="never")
    assert files(work) == {"attempt.json"}


def test_an_attempt_with_a_read_error_is_refused_and_not_removed(tmp_path, monkeypatch):
    interrupted(tmp_path)
    other = fingerprint(config={"sft.lr": 0.5, "seed": 1})
    start_attempt(tmp_path, made_of=other)  # the checkpoints are set aside
    before = files(tmp_path)

    def refused(path, **options):
        raise OSError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(
        RepairableError, match=r"attempt\.json cannot be read \(Permission denied\)"
    ):
        start_attempt(tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "{}", "[" * 100_000])
def test_an_unreadable_attempt_without_checkpoints_starts_over(tmp_path, text):
    (interrupted(tmp_path, step=None) / "attempt.json").write_text(text)
    attempt, work, _ = start_attempt(tmp_path)
    assert not attempt.resumable
    assert files(work) == {"attempt.json"}


def test_a_damaged_checkpoint_is_refused_before_the_stage_starts(tmp_path):
    work = interrupted(tmp_path)
    truncate(next((work / "resume/step-00000003").glob("model*")))
    for policy in ("auto", "whole"):
        with pytest.raises(ArtifactError, match="resume=never starts the stage from scratch"):
            find_attempt(tmp_path, "sft", MINE, policy)
    assert find_attempt(tmp_path, "sft", MINE, "never").mismatch


def sealed_with(made_of):
    record = manifest()
    record.config, record.data = made_of.config, made_of.data
    record.parents, record.version = made_of.parents, made_of.version
    return record


def finish(work: Path) -> None:
    """Publish the stage as the driver does after the worker."""
    publish(work, work.parent / "sft", sealed_with(MINE), left_out=UNPUBLISHED)


def run_again(run: Path) -> str:
    """Do what the next run does; return what it found."""
    recover(run / "sft", keep=0)
    if not work_folder(run, "sft").exists():
        return "published"
    attempt = find_attempt(run, "sft", MINE, "auto")
    if attempt.unpublished:
        rename_to_final(work_folder(run, "sft"), run / "sft", left_out=UNPUBLISHED)
        return "complete"
    assert attempt.step == 3
    _, work, _ = start_attempt(run)
    finish(work)
    return "resumed"


PUBLISHED = {"metrics.jsonl", "samples.jsonl", "config.json", "manifest.json", "model"}


def test_files_of_the_attempt_alone_are_not_published(tmp_path):
    work = interrupted(tmp_path)
    attempts.start(tmp_path, "sft", MINE, find_attempt(tmp_path, "sft", MINE, "auto"))
    finish(work)
    assert files(tmp_path / "sft") == PUBLISHED
    assert set(open_stage(tmp_path / "sft", "sft").files) == {
        "metrics.jsonl", "samples.jsonl", "config.json", "model/x.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize("fault", [killed, full])
@pytest.mark.parametrize("with_old", [False, True])
def test_a_fault_at_any_point_of_a_publication_loses_nothing(tmp_path, fault, with_old):
    numbers = itertools.count()

    def start() -> Path:
        run = tmp_path / str(next(numbers))
        run.mkdir()
        if with_old:
            work = attempts.start(run, "sft", fingerprint(version="old"), Attempt())[0]
            publish(work, run / "sft", sealed_with(fingerprint(version="old")))
        interrupted(run)
        attempts.start(run, "sft", MINE, find_attempt(run, "sft", MINE, "auto"))
        return run

    outcomes = set()
    for run in fault(start, lambda run: finish(work_folder(run, "sft"))):
        recover(run / "sft", keep=0)
        if with_old:
            open_stage(run / "sft", "sft")
        outcomes.add(run_again(run))
        assert open_stage(run / "sft", "sft").version == "0"
        left = {name for name in files(run / "sft") | files(run) if name.endswith(".gone")}
        assert files(run / "sft") - left == PUBLISHED
        assert files(run) - left == {"sft"}
    assert outcomes >= {"resumed", "complete"}


def complete_unpublished(work: Path) -> None:
    """Leave the stage as it is before the last rename of its publication."""
    record = sealed_with(MINE)
    record.files = file_records(work, UNPUBLISHED)
    (work / "manifest.json").write_text(record.seal().to_json())


def test_a_complete_stage_of_another_configuration_is_not_published(tmp_path):
    work = interrupted(tmp_path)
    other = fingerprint(config={"sft.lr": 0.5, "seed": 1})
    complete_unpublished(work)
    assert find_attempt(tmp_path, "sft", MINE, "auto").unpublished
    attempt = find_attempt(tmp_path, "sft", other, "auto")
    assert attempt.unpublished is None
    assert attempt.mismatch == "sft.lr changed 1.0 -> 0.5"


def test_a_complete_stage_with_a_damaged_manifest_resumes_instead(tmp_path):
    work = interrupted(tmp_path)
    attempts.start(tmp_path, "sft", MINE, find_attempt(tmp_path, "sft", MINE, "auto"))
    complete_unpublished(work)
    assert find_attempt(tmp_path, "sft", MINE, "auto").unpublished
    (work / "manifest.json").write_text("{")
    assert find_attempt(tmp_path, "sft", MINE, "auto").step == 3
    checkpoints.remove_all(work)
    assert (
        find_attempt(tmp_path, "sft", MINE, "auto").description
        == "interrupted before its first save"
    )

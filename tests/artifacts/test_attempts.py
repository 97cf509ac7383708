"""Interrupted attempts: gone on with when they are the same stage, and published at any instant."""

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


def begun(run: Path, *, made_of=MINE, policy="auto") -> tuple[Attempt, Path, str]:
    attempt = find_attempt(run, "sft", made_of, policy)
    return attempt, *attempts.start(run, "sft", made_of, attempt)


def interrupted(run: Path, step: int | None = 3) -> Path:
    """A work folder as a killed worker leaves it."""
    _, work, _ = begun(run)
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


def test_the_first_attempt_has_nothing_to_tell(tmp_path):
    attempt, work, started = begun(tmp_path)
    assert attempt == Attempt()
    assert attempt.description == ""
    assert files(work) == {"attempt.json"}
    assert json.loads((work / "attempt.json").read_text())["started"] == started


def test_the_same_attempt_goes_on_with_what_it_made(tmp_path):
    interrupted(tmp_path, step=120)
    stored = tmp_path / ".sft.work" / "attempt.json"
    stored.write_text(stored.read_text().replace('"started": "2', '"started": "1'))
    attempt, work, started = begun(tmp_path)
    assert attempt.description == "resuming from step 120"
    assert started.startswith("1")
    made = {"metrics.jsonl", "samples.jsonl", "model", "resume", "latest.json", "config.json"}
    assert files(work) == {*made, "attempt.json"}


def test_before_its_first_save_it_starts_anew(tmp_path):
    interrupted(tmp_path, step=None)
    attempt, work, _ = begun(tmp_path)
    assert attempt.description == "interrupted before its first save"
    assert files(work) == {"attempt.json"}


@pytest.mark.parametrize(
    ("changed", "policy", "told"),
    [
        ({"config": {"sft.lr": 0.5, "seed": 1}}, "auto", "sft.lr changed 1.0 -> 0.5"),
        ({"parents": {"sft": "e"}}, "whole", "parent sft changed"),
        ({"data": {"data.prompts": {"a": "2"}}}, "auto", "data.prompts: a was edited"),
        ({"version": "1"}, "auto", "rlhf changed 0 -> 1"),
        ({}, "never", "resume=never"),
    ],
)
def test_another_attempt_starts_anew_and_says_why(tmp_path, changed, policy, told):
    interrupted(tmp_path)
    attempt, work, _ = begun(tmp_path, made_of=fingerprint(**changed), policy=policy)
    assert attempt.description.startswith(f"starting over: {told}")
    assert files(work) == {"attempt.json"}
    assert find_attempt(tmp_path, "sft", fingerprint(**changed), "auto").mismatch == ""


def test_what_was_given_up_comes_back_with_its_configuration(tmp_path):
    """A mistyped learning rate does not cost what was saved, in either direction."""
    other = fingerprint(config={"sft.lr": 0.5, "seed": 1})
    save(interrupted(tmp_path, step=3), 4)
    attempt, work, _ = begun(tmp_path, made_of=other)
    assert str(tmp_path / ".sft.given-up") in attempt.description
    save(work, 9)
    for made_of, step in ((MINE, 4), (other, 9), (MINE, 4)):
        attempt, work, _ = begun(tmp_path, made_of=made_of)
        assert attempt.description == f"resuming from step {step}"
        assert checkpoints.latest(work, "auto").step == step
    attempts.remove_parked(tmp_path, "sft")
    assert files(tmp_path) == {".sft.work"}


def test_without_a_save_nothing_is_parked(tmp_path):
    interrupted(tmp_path, step=None)
    begun(tmp_path, made_of=fingerprint(parents={"sft": "e"}))
    assert files(tmp_path) == {".sft.work"}


@pytest.mark.parametrize("text", ["", "{", "{}", '{"made_of": {"config": 1}}', "[1]"])
def test_checkpoints_of_an_unreadable_attempt_are_not_passed_over(tmp_path, text):
    (interrupted(tmp_path) / "attempt.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"attempt\.json cannot be read.*resume=never"):
        begun(tmp_path)
    _, work, _ = begun(tmp_path, policy="never")
    assert files(work) == {"attempt.json"}


def test_an_attempt_that_cannot_be_read_for_a_moment_is_neither_passed_over_nor_removed(
    tmp_path, monkeypatch
):
    interrupted(tmp_path)
    other = fingerprint(config={"sft.lr": 0.5, "seed": 1})
    begun(tmp_path, made_of=other)  # what had been saved waits aside
    before = files(tmp_path)

    def refused(path, **options):
        raise OSError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(
        RepairableError, match=r"attempt\.json cannot be read \(Permission denied\)"
    ):
        begun(tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "{}", "[" * 100_000])
def test_an_unreadable_attempt_that_saved_nothing_starts_anew(tmp_path, text):
    (interrupted(tmp_path, step=None) / "attempt.json").write_text(text)
    attempt, work, _ = begun(tmp_path)
    assert not attempt.resumable
    assert files(work) == {"attempt.json"}


def test_a_broken_checkpoint_is_refused_before_anything_starts(tmp_path):
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
    """What the driver does once the worker is done."""
    publish(work, work.parent / "sft", sealed_with(MINE), left_out=UNPUBLISHED)


def again(run: Path) -> str:
    """What the next run finds, and does."""
    recover(run / "sft", keep=0)
    if not work_folder(run, "sft").exists():
        return "published"
    attempt = find_attempt(run, "sft", MINE, "auto")
    if attempt.unpublished:
        rename_to_final(work_folder(run, "sft"), run / "sft", left_out=UNPUBLISHED)
        return "whole"
    assert attempt.step == 3
    _, work, _ = begun(run)
    finish(work)
    return "went on"


PUBLISHED = {"metrics.jsonl", "samples.jsonl", "config.json", "manifest.json", "model"}


def test_what_serves_the_attempt_only_is_not_published(tmp_path):
    work = interrupted(tmp_path)
    attempts.start(tmp_path, "sft", MINE, find_attempt(tmp_path, "sft", MINE, "auto"))
    finish(work)
    assert files(tmp_path / "sft") == PUBLISHED
    assert set(open_stage(tmp_path / "sft", "sft").files) == {
        "metrics.jsonl", "samples.jsonl", "config.json", "model/x.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize("trouble", [killed, full])
@pytest.mark.parametrize("with_old", [False, True])
def test_at_every_instant_of_a_publication_nothing_is_lost(tmp_path, trouble, with_old):
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

    ways = set()
    for run in trouble(start, lambda run: finish(work_folder(run, "sft"))):
        recover(run / "sft", keep=0)
        if with_old:
            open_stage(run / "sft", "sft")
        ways.add(again(run))
        assert open_stage(run / "sft", "sft").version == "0"
        left = {name for name in files(run / "sft") | files(run) if name.endswith(".gone")}
        assert files(run / "sft") - left == PUBLISHED
        assert files(run) - left == {"sft"}
    assert ways >= {"went on", "whole"}


def seal_whole(work: Path) -> None:
    """Leave the stage as it is before the last rename of its publication."""
    record = sealed_with(MINE)
    record.files = file_records(work, UNPUBLISHED)
    (work / "manifest.json").write_text(record.seal().to_json())


def test_what_is_whole_but_of_something_else_is_not_put_in_its_place(tmp_path):
    work = interrupted(tmp_path)
    other = fingerprint(config={"sft.lr": 0.5, "seed": 1})
    seal_whole(work)
    assert find_attempt(tmp_path, "sft", MINE, "auto").unpublished
    attempt = find_attempt(tmp_path, "sft", other, "auto")
    assert attempt.unpublished is None
    assert attempt.mismatch == "sft.lr changed 1.0 -> 0.5"


def test_what_is_whole_but_was_damaged_since_goes_on_instead(tmp_path):
    work = interrupted(tmp_path)
    attempts.start(tmp_path, "sft", MINE, find_attempt(tmp_path, "sft", MINE, "auto"))
    seal_whole(work)
    assert find_attempt(tmp_path, "sft", MINE, "auto").unpublished
    (work / "manifest.json").write_text("{")
    assert find_attempt(tmp_path, "sft", MINE, "auto").step == 3
    checkpoints.remove_all(work)
    assert (
        find_attempt(tmp_path, "sft", MINE, "auto").description
        == "interrupted before its first save"
    )

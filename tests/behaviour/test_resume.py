"""An interrupted stage resumes with the same numbers to the last bit."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from pkgutil import resolve_name

import pytest

from rlhf_cli.artifacts import checkpoints
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.launch.signals import Stopped
from rlhf_cli.stages.saving import Saver
from rlhf_cli.telemetry.timing import PHASES
from tests.support.stage_runs import SMALL, rows, work

# PPO has 2 minibatches x 2 inner epochs per iteration: 1, 3 and 6 are within a rollout, 4 ends one
STOPS = {"sft": (1, 4, 7), "rm": (1, 6, 8), "ppo": (1, 3, 4, 6, 11)}
STOPS |= {"rloo": (1, 4, 6), "dpo": (1, 3), "raft": (1, 3)}
WORDS = {"rm": ["rm.members=2"]}  # of 6 steps each


@pytest.fixture(autouse=True)
def signal_handlers():
    """Restore the signal handlers of pytest, which a stage replaces."""
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in handled}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """Run all three stages without an interruption; return their folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for stage in STOPS:
        work(stage, folder, folder, *WORDS.get(stage, []))
    return folder


def test_the_times_of_a_resumed_stage_include_all_attempts(uninterrupted, tmp_path, monkeypatch):
    """After a stop within a rollout its phases keep their seconds, and none counts twice."""
    stop_at(monkeypatch, 3)
    with pytest.raises(Stopped):
        work("ppo", uninterrupted, tmp_path)
    file = tmp_path / "ppo" / "metrics.jsonl"
    assert "time/learn" not in file.read_text()  # stopped within the first iteration
    saved = checkpoints.latest(tmp_path / "ppo", "auto").state["recorder"]["clock"]
    monkeypatch.undo()
    work("ppo", uninterrupted, tmp_path)
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert sum("time/start" in row for row in found) == 2
    first = next(row for row in found if row.get("step") == 1)
    for part in ("generate", "score"):  # the rollout was not sampled again
        assert first[f"time/{part}"] == saved["seconds"][part] > 0
    assert first["time/learn"] > saved["seconds"]["learn"] > 0
    generated = first["speed/generated_tokens_per_s"] * first["time/generate"]
    assert generated == pytest.approx(saved["counts"]["generated"])
    assert generated >= first["objective/response_length"] * 16  # with the samples before training
    parts = sum(v for row in found for k, v in row.items() if k in {f"time/{p}" for p in PHASES})
    assert parts == pytest.approx(found[-1]["time"], abs=0.2)


def assert_same_result(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    assert (one / "samples.jsonl").read_text() == (other / "samples.jsonl").read_text()
    models = [*one.glob("*model/*.safetensors"), *one.glob("members/*/*.safetensors")]
    weights = sorted(path.relative_to(one) for path in models)
    assert weights
    for path in weights:
        assert (one / path).read_bytes() == (other / path).read_bytes(), path


def stop_at(monkeypatch, *steps: int) -> None:
    """Request a stop, as by Ctrl-C or a pre-emption, at these steps."""
    monkeypatch.setattr(Saver, "_wanted", lambda self, step: (step in steps, step in steps))


@pytest.mark.parametrize("stage", STOPS)
def test_a_resumed_stage_equals_the_uninterrupted_one_bit_for_bit(
    stage, uninterrupted, tmp_path, monkeypatch
):
    """After several stops, weights, metrics and samples equal those of the uninterrupted run."""
    for step in STOPS[stage]:
        stop_at(monkeypatch, step)
        with pytest.raises(Stopped, match=f"saved at step {step}"):
            work(stage, uninterrupted, tmp_path, *WORDS.get(stage, []))
    monkeypatch.undo()
    work(stage, uninterrupted, tmp_path, *WORDS.get(stage, []))
    assert_same_result(tmp_path / stage, uninterrupted / stage)


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_an_epoch_is_collated_only_when_it_is_reached(stage, uninterrupted, tmp_path, monkeypatch):
    """No epoch is collated before the first step, nor one that a resumed stage has passed."""
    module, collated = resolve_name(STAGES[stage].module), []
    collate = module.steps_of

    def steps_of(context, examples, epoch, **options):
        collated.append(epoch)
        return collate(context, examples, epoch, **options)

    monkeypatch.setattr(module, "steps_of", steps_of)
    keys = (f"{stage}.epochs=3", "sft.select_by=last")
    per_epoch = {"sft": 5, "rm": 6}[stage]
    for step, epochs in ((1, [0]), (per_epoch + 1, [0, 1]), (per_epoch + 2, [1])):
        collated.clear()
        stop_at(monkeypatch, step)
        with pytest.raises(Stopped):
            work(stage, uninterrupted, tmp_path, *keys)
        read_held_out = [0] if stage == "sft" and step == per_epoch + 1 else []
        assert collated == epochs[:1] + read_held_out + epochs[1:]


def test_saving_checkpoints_does_not_change_the_result(uninterrupted, tmp_path):
    for stage in ("sft", "ppo"):
        work(stage, uninterrupted, tmp_path, "save.every_steps=1", *WORDS.get(stage, []))
        assert_same_result(tmp_path / stage, uninterrupted / stage)
        kept = sorted(p.name for p in (tmp_path / stage / "resume").iterdir())
        assert len(kept) == 2  # save.keep


def test_metrics_after_the_last_checkpoint_are_removed(uninterrupted, tmp_path, monkeypatch):
    """The stage is killed some steps after its checkpoint, and their metrics are not repeated."""
    stop_at(monkeypatch, 3)
    with pytest.raises(Stopped):
        work("sft", uninterrupted, tmp_path)
    monkeypatch.undo()
    folder = tmp_path / "sft"
    monkeypatch.setattr(Saver, "_wanted", killed_at(6))
    with pytest.raises(MemoryError):
        work("sft", uninterrupted, tmp_path)
    monkeypatch.undo()
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 7, "sft/lo')  # a line cut off by the kill
    work("sft", uninterrupted, tmp_path)
    assert_same_result(folder, uninterrupted / "sft")


def killed_at(step):
    def wanted(self, now):
        if now == step:
            raise MemoryError
        return False, False

    return wanted


def test_a_damaged_checkpoint_is_refused_by_name(uninterrupted, tmp_path, monkeypatch):
    for step in (2, 4):
        stop_at(monkeypatch, step)
        with pytest.raises(Stopped):
            work("sft", uninterrupted, tmp_path)
    monkeypatch.undo()
    latest = checkpoints.latest(tmp_path / "sft", "auto")
    assert latest.step == 4
    file = next(latest.folder.glob("model-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"truncated.*step.*2.*resume=last_valid"):
        work("sft", uninterrupted, tmp_path)
    work("sft", uninterrupted, tmp_path, "resume=last_valid")
    assert_same_result(tmp_path / "sft", uninterrupted / "sft")


@pytest.mark.slow
def test_a_preempted_command_resumes_from_its_checkpoint(uninterrupted, tmp_path):
    """SIGUSR1 saves, SIGTERM saves and stops; the same command then gives the same result."""
    stage = ("run", *SMALL, "stage=sft", "sft.epochs=2")
    process = start(tmp_path, *stage)
    work_folder = tmp_path / "runs" / "default" / ".sft.work"
    wait_for(lambda: lines(work_folder / "metrics.jsonl") >= 1, process)
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: (work_folder / "latest.json").exists(), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"stopped during sft, saved at step \d+ .*Resume with: .*rlhf", errors)
    resumed = start(tmp_path, *stage)
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert re.search(r"resuming from step \d+", output)
    finished = tmp_path / "runs" / "default" / "sft"
    assert_same_result(finished, uninterrupted / "sft")
    assert not (finished / "resume").exists()


def start(folder: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "rlhf_cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for(holds, process: subprocess.Popen) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)

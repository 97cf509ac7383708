"""Trackers of accelerate, opened only when installed."""

import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Tracker
from rlhf_cli.runtime.trackers import open_trackers, require_installed
from rlhf_cli.telemetry.recorder import RecordedStage, Recorder


def stage(total_steps: int, config: dict) -> RecordedStage:
    return RecordedStage(name="sft", total_steps=total_steps, headline=(), every=1, config=config)


def test_a_tracker_that_is_not_installed_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr("rlhf_cli.runtime.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb.*pip install 'rlhf-cli\[wandb\]'"):
        require_installed([Tracker.wandb])


def test_tensorboard_receives_every_finite_number(tmp_path):
    if find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = open_trackers([Tracker.tensorboard], folder=tmp_path, project="p", run_name="r")
    with Recorder(
        tmp_path, stage(2, config={"a": {"b": [1, 2]}, "c": None}), trackers=trackers
    ) as log:
        log.log({"sft/loss": 2.0, "odd": float("nan")}, 1)
        log.log({"sft/loss": 1.5}, 2)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("sft/loss")] == [(1, 2.0), (2, 1.5)]
    assert "odd" not in events.Tags()["scalars"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["odd"] is None


def test_tensorboard_hides_steps_logged_after_the_checkpoint_that_is_resumed(tmp_path):
    if find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = {"folder": tmp_path, "project": "p", "run_name": "r"}
    for step, logged in ((None, {1: 1.0, 2: 2.0, 3: 3.0}), (1, {2: 7.0})):
        (tracker,) = open_trackers([Tracker.tensorboard], **place, step=step)
        for number, value in logged.items():
            tracker.log({"sft/loss": value}, number)
        tracker.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("sft/loss")] == [(1, 1.0), (2, 7.0)]


@pytest.mark.parametrize("name", [Tracker.wandb, Tracker.trackio])
def test_wandb_and_trackio_are_started_logged_to_and_finished(name, tmp_path, monkeypatch):
    """The library is a fake module that records its calls; the tracker class is the real one."""
    calls = []
    run = SimpleNamespace(
        id="7", name="r-sft", log=lambda values, **other: calls.append(values),
        finish=lambda: calls.append("finished"),
    )  # fmt: skip
    config = SimpleNamespace(update=lambda values, **other: calls.append("config"))
    run.config = config
    module = ModuleType(name.value)
    module.__spec__ = ModuleSpec(name.value, None)
    module.init = lambda **settings: calls.append(settings) or run
    module.config = config
    monkeypatch.setitem(sys.modules, name.value, module)
    trackers = open_trackers([name], folder=tmp_path, project="mine", run_name="r-sft")
    with Recorder(tmp_path, stage(1, config={}), trackers=trackers) as log:
        log.log({"sft/loss": 2.0}, 1)
    assert calls[0]["project"] == "mine"
    assert calls[0]["name"] == "r-sft"
    assert {"sft/loss": 2.0} in calls
    assert calls[-1] == "finished"


@pytest.mark.parametrize(
    ("name", "same"),
    [
        (Tracker.wandb, {"id": "7", "name": "r-sft", "resume": "allow"}),
        (Tracker.trackio, {"name": "r-sft-1", "resume": "allow"}),
    ],
)
def test_a_resumed_run_continues_the_same_run_in_its_trackers(name, same, tmp_path, monkeypatch):
    calls = []
    run = SimpleNamespace(id="7", name="r-sft-1")
    module = ModuleType(name.value)
    module.__spec__ = ModuleSpec(name.value, None)
    module.init = lambda **settings: calls.append(settings) or run
    monkeypatch.setitem(sys.modules, name.value, module)
    place = {"folder": tmp_path, "project": "mine", "run_name": "r-sft"}
    first = open_trackers([name], **place)[0]
    assert "resume" not in calls[0]
    open_trackers([name], **place, run_ids={first.name: first.run_id}, step=3)
    assert calls[1] | same == calls[1]

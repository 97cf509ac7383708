"""Trackers are accelerate's, opened only when installed."""

import json
from importlib.util import find_spec

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Tracker
from rlhf_cli.runtime.trackers import open_trackers, require_installed
from rlhf_cli.telemetry.recorder import Recorder


def test_what_is_not_installed_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr("rlhf_cli.runtime.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb.*pip install 'rlhf-cli\[wandb\]'"):
        require_installed([Tracker.wandb])


def test_tensorboard_gets_every_finite_number(tmp_path):
    if find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = open_trackers([Tracker.tensorboard], folder=tmp_path, project="p", run_name="r")
    with Recorder(
        tmp_path, stage="sft", total_steps=2, headline=(), trackers=trackers,
        run_config={"a": {"b": [1, 2]}, "c": None}, every=1,
    ) as log:  # fmt: skip
        log.log({"sft/loss": 2.0, "odd": float("nan")}, 1)
        log.log({"sft/loss": 1.5}, 2)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("sft/loss")] == [(1, 2.0), (2, 1.5)]
    assert "odd" not in events.Tags()["scalars"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["odd"] is None

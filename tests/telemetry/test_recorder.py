"""metrics.jsonl, samples.jsonl and trackers; a bar on a terminal and plain lines elsewhere."""

import io
import json
import sys

import pytest
from rich.console import Console

from rlhf_cli.config.errors import UserError
from rlhf_cli.telemetry import console as screen
from rlhf_cli.telemetry import progress, recorder
from rlhf_cli.telemetry.progress import duration, short
from rlhf_cli.telemetry.recorder import RecordedStage, Recorder


class RecordingTracker:
    name, run_id = "spy", "run-7"

    def __init__(self):
        self.logged, self.config, self.finished = [], None, False

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


def open_recorder(folder, *, total=20, every=1, trackers=(), **more):
    return Recorder(
        folder,
        RecordedStage(
            name="sft",
            total_steps=total,
            headline=("sft/loss",),
            every=every,
            config={"sft": {"optim": {"lr": 0.1}, "betas": [0.9, 0.95]}, "seed": None},
        ),
        trackers=trackers,
        **more,
    )


def entries(folder):
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_have_one_line_per_step(tmp_path):
    with open_recorder(tmp_path, total=3) as log:
        for step in (1, 2, 3):
            log.log({"sft/loss": step / 10}, step)
    found = entries(tmp_path)
    assert [e["step"] for e in found] == [1, 2, 3]
    assert [e["sft/loss"] for e in found] == [0.1, 0.2, 0.3]
    assert all(e["time"] >= 0 for e in found)


def test_the_last_step_is_logged_whatever_the_interval(tmp_path):
    with open_recorder(tmp_path, total=7, every=3) as log:
        for step in range(1, 8):
            log.log({"x": 1.0}, step)
    assert [e["step"] for e in entries(tmp_path)] == [3, 6, 7]


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path):
    tracker = RecordingTracker()
    with open_recorder(tmp_path, trackers=[tracker]) as log:
        log.log({"a": float("nan"), "b": float("inf"), "c": 1}, 1)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    entry = entries(tmp_path)[0]
    assert (entry["a"], entry["b"], entry["c"]) == (None, None, 1.0)
    assert tracker.logged == [(1, {"c": 1.0})]


def test_trackers_get_flat_scalars_and_are_closed_on_failure(tmp_path):
    tracker = RecordingTracker()
    with pytest.raises(ZeroDivisionError), open_recorder(tmp_path, trackers=[tracker]):
        raise ZeroDivisionError
    assert tracker.config == {"sft.optim.lr": 0.1, "sft.betas": "[0.9, 0.95]", "seed": "null"}
    assert tracker.finished


def test_plain_output_has_a_line_per_tenth_with_the_headline_metric(tmp_path, capsys):
    with open_recorder(tmp_path, total=200) as log:
        for step in range(1, 201):
            log.log({"sft/loss": 2.5, "other": 1.0}, step)
        log.note("a note")
        log.warn("a warning")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13  # the first step, ten tenths, two notes
    assert lines[0].startswith("  sft 1/200  loss 2.5  0:0")
    assert "other" not in "".join(lines)
    assert lines[-2:] == ["  a note", "  warning: a warning"]
    assert entries(tmp_path)[-1]["warning"] == "a warning"


def test_a_terminal_gets_a_live_bar(tmp_path, monkeypatch):
    tty = Console(file=io.StringIO(), force_terminal=True, width=100)
    for module in (screen, progress, recorder):
        monkeypatch.setattr(module, "console", lambda: tty)
    with open_recorder(tmp_path, total=4) as log:
        log.log({"sft/loss": 2.5}, 1)
        log.progress.bar.refresh()
    assert "1/4" in tty.file.getvalue()
    assert "loss 2.5" in tty.file.getvalue()


def test_notes_are_printed_above_the_live_bar(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with open_recorder(tmp_path, total=4) as log:
        here = screen.console()
        log.note("a note")
        assert screen.console() is here
    assert here.file is terminal


def test_samples_are_shown_and_written(tmp_path, capsys):
    with open_recorder(tmp_path) as log:
        log.samples("before and after", [{"prompt": "2 + 2", "before": "", "after": "[4]"}])
        log.samples("none", [])
    shown = capsys.readouterr().out
    assert "(nothing)" in shown
    assert "[4]" in shown
    kept = json.loads((tmp_path / "samples.jsonl").read_text())
    assert kept == {"title": "before and after", "prompt": "2 + 2", "before": "", "after": "[4]"}


def steps(folder) -> list[int]:
    return [entry["step"] for entry in entries(folder) if "step" in entry]


def test_a_resumed_recorder_removes_lines_written_after_the_checkpoint(tmp_path):
    with open_recorder(tmp_path) as log:
        for step in (1, 2):
            log.log({"x": 1.0}, step)
        log.samples("before", [{"prompt": "a"}])
        state = json.loads(json.dumps(log.state()))
        log.log({"x": 2.0}, 3)
        log.samples("lost", [{"prompt": "b"}])
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "x')  # a line cut off by a crash
    with open_recorder(tmp_path, resumed=state) as log:
        assert log.state()["sizes"] == state["sizes"]
        log.log({"x": 3.0}, 3)
        log.samples("after", [{"prompt": "c"}])
    assert [e["x"] for e in entries(tmp_path)] == [1.0, 1.0, 3.0]
    titles = [json.loads(e)["title"] for e in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert titles == ["before", "after"]


def test_a_resumed_recorder_continues_the_elapsed_time(tmp_path):
    with open_recorder(tmp_path) as log:
        state = log.state() | {"seconds": 1000.0}
    with open_recorder(tmp_path, resumed=state) as log:
        log.log({}, 1)
    assert 1000 <= entries(tmp_path)[0]["time"] < 1060


def test_an_attempt_without_a_checkpoint_begins_with_empty_files(tmp_path):
    for _ in range(2):
        with open_recorder(tmp_path) as log:
            log.log({}, 1)
            log.samples("t", [{"prompt": "a"}])
    assert steps(tmp_path) == [1]
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 1


def test_lost_lines_are_reported(tmp_path, capsys):
    with open_recorder(tmp_path) as log:
        log.log({}, 1)
        log.log({}, 2)
        state = log.state()
    (tmp_path / "metrics.jsonl").write_text("")
    with open_recorder(tmp_path, resumed=state) as log:
        log.log({}, 3)
    assert "metrics.jsonl has lost lines: 0 bytes instead of" in capsys.readouterr().out
    assert steps(tmp_path) == [3]


def test_the_state_holds_the_run_ids_of_the_trackers(tmp_path):
    without_id = RecordingTracker()
    without_id.name, without_id.run_id = "tensorboard", None
    with open_recorder(tmp_path, trackers=[RecordingTracker(), without_id]) as log:
        assert log.state()["run_ids"] == {"spy": "run-7"}


def test_a_silent_recorder_prints_and_writes_nothing(tmp_path, capsys):
    with open_recorder(tmp_path / "none", silent=True) as log:
        log.log({"x": 1.0}, 1)
        log.note("a note")
        log.warn("a warning")
        log.samples("t", [{"prompt": "a"}])
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_recorder_prints_a_line_per_tenth_of_the_remaining_steps(tmp_path, capsys):
    with open_recorder(tmp_path, total=100) as log:
        state = log.state() | {"step": 50}
    with open_recorder(tmp_path, total=100, resumed=state) as log:
        for step in range(51, 101):
            log.log({"sft/loss": 1.0}, step)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  sft 51/100  loss 1")
    assert len(lines) == 6  # the first one, five tenths


def test_a_resumed_live_bar_begins_at_the_resumed_step(tmp_path, monkeypatch):
    tty = Console(file=io.StringIO(), force_terminal=True, width=100)
    for module in (screen, progress, recorder):
        monkeypatch.setattr(module, "console", lambda: tty)
    with open_recorder(tmp_path, total=4, resumed={"step": 3}) as log:
        log.progress.bar.refresh()
    assert "3/4" in tty.file.getvalue()


def test_a_full_disk_is_reported_in_one_line(tmp_path, monkeypatch):
    with open_recorder(tmp_path) as log:
        monkeypatch.setattr(recorder.Path, "open", full_disk)
        with pytest.raises(UserError, match=r"metrics.jsonl cannot be written \(No space left"):
            log.log({}, 1)


def test_a_disk_that_fails_during_fsync_is_reported_in_one_line(tmp_path, monkeypatch):
    with open_recorder(tmp_path) as log:
        log.log({}, 1)
        monkeypatch.setattr(recorder.os, "fsync", full_disk)
        with pytest.raises(UserError, match=r"metrics.jsonl cannot be written \(No space left"):
            log.state()


def full_disk(*words, **more):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (65.2, "1:05"), (3599.7, "1:00:00"), (7322, "2:02:02")]
)
def test_duration_is_shown_as_hours_minutes_and_seconds(seconds, text):
    assert duration(seconds) == text


def test_short_numbers_have_four_digits():
    assert short(3.14159) == "3.142"
    assert short(0.000123456) == "0.0001235"
    assert short(123456.0) == "1.23e+05"

"""`rlhf show RUN --time`: sums over the lines of metrics.jsonl, medians of the speeds."""

import json

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.report.time_table import show_time, spent_in

STAGES = ("sft", "rm", "ppo", "evaluate")


def write(folder, *rows, cut_off=""):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + cut_off)


@pytest.fixture
def run(tmp_path):
    write(
        tmp_path / "run" / "sft",
        {"time": 0.0, "time/start": 10.0},
        {"step": 1, "time/learn": 60.0, "time/idle": 5.0, "speed/tokens_per_s": 10, "speed/mfu": 0.1},
        {"warning": "a word", "time": 3.0},
        {"step": 2, "time/learn": 20.0, "time/idle": 0.0, "speed/tokens_per_s": 1200, "speed/mfu": None},
        {"step": 3, "time/learn": 0.0, "time/idle": 0.0, "speed/tokens_per_s": 3400, "speed/mfu": 0.3},
        {"time": 9.0, "time/save": 5.0},
    )  # fmt: skip
    write(
        tmp_path / "run" / ".ppo.work",
        {"time/start": 10.0},
        {"step": 1, "time/generate": 30.0, "time/learn": 10.0, "speed/generated_tokens_per_s": 77},
        cut_off='{"step": 2, "time/gen',
    )
    return tmp_path / "run"


def test_seconds_are_summed_and_speeds_are_medians(run):
    (sft,) = spent_in(run, "sft")
    assert (sft.seconds["start"], sft.seconds["learn"], sft.seconds["save"]) == (10, 80, 5)
    assert sft.whole == 100
    assert sft.speeds["speed/tokens_per_s"] == 1200
    assert sft.speeds["speed/mfu"] == 0.2


def test_show_time_prints_the_time_per_phase_and_stage(run, capsys):
    show_time(run, STAGES)
    shown = capsys.readouterr().out
    rows = [text.split() for text in shown.splitlines()]
    assert ["sft", "1:40", "10.0", "-", "-", "1:20", "5.0", "5.0", "1,200", "-", "20.0%"] in rows
    assert ["ppo", "50.0", "10.0", "30.0", "-", "10.0", "-", "-", "-", "77", "-"] in rows
    assert ["so", "far", "20%", "60%", "20%"] in rows
    assert ["together", "2:30", "20.0", "30.0", "-", "1:30", "5.0", "5.0"] in rows
    assert "60% of the time went into learn, most of that in sft (1:20)" in shown


@pytest.mark.parametrize(("width", "tables"), [(80, 1), (60, 2)])
def test_the_table_of_times_fits_a_narrow_terminal(run, capsys, monkeypatch, width, tables):
    monkeypatch.setenv("COLUMNS", str(width))
    show_time(run, STAGES)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert shown.count("together") == tables and shown.count("sampled/s") == 2  # one in the notes


def test_a_run_without_timings_is_refused_in_one_line(tmp_path):
    write(tmp_path / "old" / "sft", {"step": 1, "sft/loss": 2.0, "time": 4.0})
    for place in ("old", "empty"):
        (tmp_path / place).mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f"{place} has no timings: .*rlhf run"):
            show_time(tmp_path / place, STAGES)

"""The table of rationales on narrow and wide terminals."""

import json

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.report.rationale_table import (
    print_rationales,
    read_rationale_figures,
    write_rationale_figures,
)

NAMES = ("gsm8k", "tracking_shuffled_objects_seven_objects", "strategyqa", "qasc", "creak")
STEPS = ("generated", "answer", "length", "ending", "duplicate", "likelihood", "best")


UNKNOWN = {"rationales": None, "steps": None}
RIGHT, DROPPED = {"rationales": 0.625, "steps": 0.8}, {"rationales": 0.0, "steps": 1 / 3}


def steps(num: int, *, right=UNKNOWN, dropped=UNKNOWN) -> list[dict]:
    every = [
        {"step": name, "rationales": num * (9 - i), "rows": num, "gain": -0.5, "gain_stated": 4.25}
        for i, name in enumerate(STEPS)
    ]
    return [
        step | {"right": right, "dropped_right": dropped if i else UNKNOWN}
        for i, step in enumerate(every)
    ]


def content(names=NAMES, **shares) -> dict:
    tasks = {name: steps(10 * i + 13, **shares) for i, name in enumerate(names)}
    nothing = {"rationales": 0, "rows": 0, "gain": None, "gain_stated": None, "right": UNKNOWN}
    tasks[names[0]][-1] |= nothing
    notes = ["gsm8k: 3 x prompt too long", "a note \x1b[2J"]
    return {
        "title": "Rationales of sft, 5 per row",
        "all": steps(321, **shares),
        "tasks": tasks,
        "notes": notes,
    }


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """Return shown(width, content) -> the output on a terminal of that width."""

    def show(width: int, figures: dict) -> str:
        from rlhf_cli.telemetry import console

        write_rationale_figures(tmp_path, figures)
        monkeypatch.setenv("COLUMNS", str(width))
        console._console.cache_clear()
        print_rationales(tmp_path)
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_of_rationales_fits_the_width_without_truncation(shown, width):
    text = shown(width, content())
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text and "\x1b" not in text
    for name in ("all tasks", "gsm8k", "tracking_", "shuffled_objects_", "strategyqa", "creak"):
        assert name in text
    for cell in ("2889 of 321 rows", "963 of 321 rows", "g -0.50 (4.25)", "0 of 0 rows"):
        assert cell in text
    for label in ("contain the answer", "short enough", "best of its row", "3 x prompt too long"):
        assert label in text
    assert "right" not in text and "dropped" not in text


@pytest.mark.parametrize("width", [80, 140])
def test_shares_of_right_ones_are_shown_where_they_are_known(shown, width):
    text = shown(width, content(right=RIGHT, dropped=DROPPED))
    assert max(map(len, text.splitlines())) <= width
    columns, checks = 1 + len(NAMES), len(STEPS)
    assert text.count("right 0.62 (0.80)") == columns * checks - 1  # of nothing there is no share
    assert text.count("dropped 0.00 (0.33)") == columns * (checks - 1)
    assert "dropped: the same of what the check dropped" in text


def test_a_single_task_has_one_column(shown):
    text = shown(80, content(("gsm8k",)))
    assert "all tasks" not in text
    assert "gsm8k" in text


def test_an_invalid_file_of_figures_is_refused_and_a_missing_one_is_none(tmp_path, shown):
    assert read_rationale_figures(tmp_path) is None
    (tmp_path / "figures.json").write_text(json.dumps({"all": 3}))
    with pytest.raises(
        UserError, match=r"figures.json is no table of this program: run the stage rat"
    ):
        read_rationale_figures(tmp_path)

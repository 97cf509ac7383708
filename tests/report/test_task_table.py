"""The tables of tasks on narrow and wide terminals."""

import json

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.report.task_table import means_of, print_tasks, read_task_figures, write_tasks
from tests.support.task_figures import content, found, row


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """Return shown(width) -> the output on a terminal of that width."""
    write_tasks(tmp_path, content())

    def show(width: int) -> str:
        from rlhf_cli.telemetry import console

        monkeypatch.setenv("COLUMNS", str(width))
        console._console.cache_clear()
        print_tasks(tmp_path)
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_of_tasks_fits_the_width_without_truncation(shown, width):
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for name in ("rte", "gsm8k", "object_counting", "tracking_", "shuffled_objects_", "cb", "qa"):
        assert name in text
    for cell in ("~0.51", "[0.46, 0.56]", "0.22 ±0.03", "[0.17, 0.27]", "0.25"):
        assert cell in text
    for heading in ("of clusters", "algorithmic", "arithmetic", "maj@1", "maj@5", "token", "un-"):
        assert heading in text
    for label in ("base 3-shot direct", "SFT 3-shot CoT + SC", "1200 rows of 6 tasks"):
        assert label in text
    for note in ("rte: 3 x bad", "random option", "self-consistency"):
        assert note in text


INTERVALS = {
    "macro": [0.234, 0.367],
    "clusters": {"nli": [0.311, 0.487], "arithmetic": [0.104, 0.296]},
    "groups": {"algorithmic": [0.253, 0.449]},
}


@pytest.mark.parametrize("width", [80, 140])
def test_means_have_their_intervals_below_them(shown, tmp_path, width):
    figures = content()
    for one in figures["rows"]:
        one["intervals"] = INTERVALS
    assert "means: [95 %" not in shown(width)  # a file without them, of an earlier version
    write_tasks(tmp_path, figures)
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    for interval in ("[0.23, 0.37]", "[0.31, 0.49]", "[0.10, 0.30]", "[0.25, 0.45]"):
        assert text.count(interval) == len(figures["rows"])
    assert "means: [95 % interval" in text


def test_means_include_only_tasks_that_have_a_value():
    direct, votes = content()["rows"][:2]
    means = means_of(direct)
    assert means["mean\nof clusters"] == 0.3
    assert means["nli\ncluster"] == 0.4
    assert means["algorithmic\ngroup"] == 0.35
    assert means["rank\nsum"] == pytest.approx(0.6)
    assert "un-\nreadable" not in means
    means = means_of(votes)
    assert means["un-\nreadable"] == 0.125
    assert means["votes\nmaj@5"] == 0.27
    assert "rank\nsum" not in means


def test_no_figures_print_nothing(tmp_path, capsys):
    print_tasks(tmp_path)
    assert capsys.readouterr().out == ""
    assert read_task_figures(tmp_path) is None


BROKEN = json.dumps({"title": "t", "notes": [], "rows": [row("m", "direct", {"rte": found(0.5)}) | {
    "intervals": {"macro": ["x", 1], "clusters": {}, "groups": {}}}]})  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", '{"title": "t", "notes": [], "rows": [{}]}', BROKEN])
def test_an_invalid_file_of_tasks_is_refused(tmp_path, text):
    (tmp_path / "tasks.json").write_text(text)
    with pytest.raises(UserError, match=r"tasks\.json is no table of this program"):
        read_task_figures(tmp_path)


def test_written_figures_are_read_back(tmp_path):
    write_tasks(tmp_path, content())
    assert read_task_figures(tmp_path) == json.loads(json.dumps(content()))

"""What a run prints of its stages."""

from types import SimpleNamespace

import pytest

from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.pipeline import messages
from tests.support.run_folders import finish


def test_a_metric_that_is_not_finite_is_shown_as_nan(capsys):
    """The manifest stores it as null; 0 is shown as 0."""
    manifest = SimpleNamespace(metrics={"sft/loss": 0.0, "sft/eval_loss": None})
    messages.say_done(SimpleNamespace(spec=STAGES["sft"], manifest=manifest), 1.0)
    assert "sft/loss 0  sft/eval_loss nan" in capsys.readouterr().out


@pytest.fixture
def planner(tmp_path, monkeypatch):
    """The planner of a finished run without an evaluation, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(folder=finish(tmp_path / "runs/one").relative_to(tmp_path), judged={})


def test_a_run_ends_with_the_path_of_its_page(planner, capsys):
    messages.close_run(planner)
    shown = capsys.readouterr().out
    assert shown.count("runs/one/report.html") == 1 and "  runs/one/report.html\n" in shown
    assert "sft" in (planner.folder / "report.html").read_text()


@pytest.mark.parametrize("error", [OSError("disk full\nnow"), KeyError("model")])
def test_a_page_that_cannot_be_written_is_a_warning(error, planner, capsys, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(messages, "write_page", fail)
    messages.close_run(planner)
    warning, results, _ = capsys.readouterr().out.splitlines()
    assert (
        warning.startswith("warning: the page of the run was not written (")
        and "report.html" not in warning
    )
    assert results == "Results: runs/one; show them with"

"""The console: control sequences in data are escaped; long lines are broken between words."""

import io
import os
import sys

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rlhf_cli.telemetry.console import OutputClosed, console, line, status
from rlhf_cli.telemetry.recorder import sample_panel

HOSTILE = "\x1b]0;owned\x07\x1b[2J[red]x[/] [link=http://a]b[/link] [/]"


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that makes stdout a terminal of 40 columns and returns it."""

    def become() -> io.StringIO:
        stream = io.StringIO()
        stream.isatty = lambda: True
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "40")
        return stream

    return become


def hostile_table(text: str) -> Table:
    found = Table(title=text)
    found.add_column(text)
    found.add_row(text)
    found.add_row(Text(text))  # a Text, whose content no caller has escaped
    return found


@pytest.mark.parametrize(
    "show", [line, lambda t: console().print(hostile_table(t), Panel(t), Text(t))]
)
def test_control_sequences_and_markup_in_data_are_shown_and_not_executed(show, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    show(HOSTILE)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown
    assert "\\x1b[2J[red]x[/] [link=http://a]b[/link] [/]" in shown


def test_panels_of_samples_show_escapes_and_keep_their_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    console().print(sample_panel("[/]\x1b", [{"prompt": "say " * 12, "a\x1bb": "one\rtwo"}]))
    assert [row.strip("│╭╮ ─") for row in capsys.readouterr().out.splitlines()][:4] == [
        "[/]\\x1b",
        "prompt  say say say say say say say",
        "say say say say say",
        "a\\x1bb  one\\rtwo",
    ]


def test_a_panel_indents_the_continuation_of_a_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    console().print(sample_panel("t", [{"SFT, best of 2": "say " * 12}]))
    rows = capsys.readouterr().out.splitlines()
    assert {row.index("say") for row in rows if "say" in row} == {18}


def test_a_long_line_is_broken_between_words_and_indented(terminal):
    shown = terminal()
    line("  preferring the longer response would give 57.5%; score and length correlate")
    assert [row.rstrip() for row in shown.getvalue().splitlines()] == [
        "  preferring the longer response would",
        "    give 57.5%; score and length",
        "    correlate",
    ]


def test_a_line_to_be_copied_is_not_broken(terminal):
    shown = terminal()
    line("rlhf show a/long/path/to/runs 'and another one of them'", whole=True)
    assert shown.getvalue() == "rlhf show a/long/path/to/runs 'and another one of them'\n"


def test_a_line_is_not_broken_outside_a_terminal(capsys):
    line("word " * 60)
    assert capsys.readouterr().out.count("\n") == 1


def test_writing_to_a_closed_pipe_raises_output_closed(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(OutputClosed):
            line("hello")


def test_status_prints_one_line_unless_silent(capsys):
    with status("loading a\x1bb"):
        pass
    with status("loading", silent=True):
        pass
    assert capsys.readouterr().out == "  loading a\\x1bb ...\n"


def test_status_is_erased_from_a_terminal(terminal):
    shown = terminal()
    with status("loading"):
        pass
    assert "loading" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[2K")  # the line is erased

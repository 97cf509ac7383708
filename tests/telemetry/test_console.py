"""The screen: what others wrote is never an instruction; long lines are broken between words."""

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


def grid(text: str) -> Table:
    found = Table(title=text)
    found.add_column(text)
    found.add_row(text)
    found.add_row(Text(text))  # built without a thought of what is in it
    return found


@pytest.mark.parametrize("how", [line, lambda t: console().print(grid(t), Panel(t), Text(t))])
def test_what_others_wrote_is_never_an_instruction(how, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    how(HOSTILE)
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


def test_a_panel_keeps_its_indent_where_a_text_goes_on(capsys, monkeypatch):
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


def test_what_shall_be_copied_stays_whole(terminal):
    shown = terminal()
    line("rlhf show a/long/path/to/runs 'and another one of them'", whole=True)
    assert shown.getvalue() == "rlhf show a/long/path/to/runs 'and another one of them'\n"


def test_elsewhere_a_line_is_one_line(capsys):
    line("word " * 60)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_reader_who_has_gone_ends_it_by_an_error_of_its_own(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(OutputClosed):
            line("hello")


def test_what_is_done_is_said_once_and_by_one_process(capsys):
    with status("loading a\x1bb"):
        pass
    with status("loading", silent=True):
        pass
    assert capsys.readouterr().out == "  loading a\\x1bb ...\n"


def test_on_a_terminal_it_goes_away(terminal):
    shown = terminal()
    with status("loading"):
        pass
    assert "loading" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[2K")  # the line is erased

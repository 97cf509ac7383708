"""No string of others moves the cursor, and no character stops the command."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cli.config import printable as module
from rlhf_cli.config.printable import one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),  # what ESC [ is in eight bits
        ("a\rb\x08\x00\x7f", "a\\rb\\x08\\x00\\x7f"),
        ("user\u202eecils", "user\\u202eecils"),
        ("a\u2028b\ud800", "a\\u2028b\\ud800"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("Grüße, 你好, 👩‍👩‍👧, שלום", "Grüße, 你好, 👩‍👩‍👧, שלום"),
    ],
)
def test_control_characters_are_shown_as_what_they_are(text, shown):
    assert printable(text) == shown


def test_a_name_stays_on_one_line():
    assert one_line("a\nrlhf: done") == "a\\nrlhf: done"


def test_a_stream_takes_what_its_encoding_lacks(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    module.ready_streams()
    print("a · b")
    stream.flush()
    assert stream.buffer.getvalue() == b"a \\xb7 b\n"


def test_closed_streams_are_no_error_and_children_inherit_a_place_for_theirs():
    root = Path(__file__).resolve().parents[2]
    code = (
        "import os; from rlhf_cli.config.printable import ready_streams as r; r(); print('x');"
        "raise SystemExit(os.system('echo y') + (not os.get_inheritable(1)))"
    )
    run = [sys.executable, "-S", "-c", code]
    env = os.environ | {"PYTHONPATH": str(root)}
    assert subprocess.run(run, env=env, preexec_fn=lambda: os.close(1)).returncode == 0

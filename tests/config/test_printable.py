"""Control characters in foreign text are escaped, and no character breaks the output."""

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
        ("\x9b31m", "\\x9b31m"),  # the 8-bit form of ESC [
        ("a\rb\x08\x00\x7f", "a\\rb\\x08\\x00\\x7f"),
        ("user\u202eecils", "user\\u202eecils"),
        ("a\u2028b\ud800", "a\\u2028b\\ud800"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("Grüße, 你好, 👩‍👩‍👧, שלום", "Grüße, 你好, 👩‍👩‍👧, שלום"),
    ],
)
def test_printable_escapes_control_characters_and_keeps_other_text(text, shown):
    assert printable(text) == shown


def test_one_line_escapes_line_breaks():
    assert one_line("a\nrlhf: done") == "a\\nrlhf: done"


def test_characters_outside_the_encoding_of_a_stream_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    module.ready_streams()
    print("a · b")
    stream.flush()
    assert stream.buffer.getvalue() == b"a \\xb7 b\n"


def test_closed_standard_streams_are_replaced_for_the_process_and_its_children():
    root = Path(__file__).resolve().parents[2]
    code = (
        "import os; from rlhf_cli.config.printable import ready_streams as r; r(); print('x');"
        "raise SystemExit(os.system('echo y') + (not os.get_inheritable(1)))"
    )
    run = [sys.executable, "-S", "-c", code]
    env = os.environ | {"PYTHONPATH": str(root)}
    assert subprocess.run(run, env=env, preexec_fn=lambda: os.close(1)).returncode == 0

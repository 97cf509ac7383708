"""Text that is safe to print: no control characters, on streams that take any text.

Data, models and folders of others may hold strings that move the cursor, clear the screen, set the
clipboard or reverse the order of the letters. They are printed as escapes: \\x1b[2J.
"""

import io
import os
import re
import sys

# C0 and C1 without tab and line end, the line separators, what changes the direction of writing, and
# halves of surrogate pairs, which no encoding can write.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return the text with an escape for each control character; tabs and line ends stay."""
    return CONTROLS.sub(_escape, text)


def one_line(text: str) -> str:
    """Return the text as `printable` does, with an escape for each line end too."""
    return printable(text).replace("\n", "\\n")


def _escape(found: re.Match) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def ready_streams() -> None:
    """Make stdout and stderr take every character, and replace one that is closed.

    A character that the encoding lacks is written as its escape.
    """
    sys.stdout = sys.stdout or _nowhere(1)
    sys.stderr = sys.stderr or _nowhere(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nowhere(handle: int) -> io.TextIOWrapper:
    """Return a stream to /dev/null with the number of the closed one, inherited by child processes."""
    opened = os.open(os.devnull, os.O_WRONLY)
    if opened != handle:
        os.dup2(opened, handle)
        os.close(opened)
    os.set_inheritable(handle, True)
    return os.fdopen(handle, "w", encoding="utf-8")


def drop_output() -> None:
    """Send further output to /dev/null, because its reader has closed it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

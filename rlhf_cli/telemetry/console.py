"""The screen: colours and boxes on a terminal, plain lines in a file or a pipe."""

import os
import sys
from functools import cache
from typing import IO

from rich.console import Console
from rich.file_proxy import FileProxy

PLAIN_WIDTH = 100


def console() -> Console:
    """The console of whatever stdout is now, looking through the proxy of a live display."""
    stream = sys.stdout
    return _console(stream.rich_proxied_file if isinstance(stream, FileProxy) else stream)


@cache
def _console(stream: IO[str]) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, emoji=False)


def line(text: str, *, style: str = "") -> None:
    """One line, whole even when longer than the screen, markup taken literally."""
    console().print(text, style=style, markup=False, soft_wrap=True)

"""The screen: colours and boxes on a terminal, plain lines in a file or a pipe.

Markup is off: a string of data, of a model or of a run is never read as instructions, neither by rich
nor (config.printable) by the terminal.
"""

import os
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.file_proxy import FileProxy
from rich.segment import Segment
from rich.text import Text

from rlhf_cli.config.printable import drop_output, one_line, printable

PLAIN_WIDTH = 100


class OutputClosed(BrokenPipeError):
    """Whoever read what is printed has gone."""


class _Screen(Console):
    """A console whose plain strings are made harmless and that never ends the process by itself."""

    def render_str(self, text: str, **how) -> Text:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().render_str(printable(text), **how)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The last line of defence: whatever built the text, no control character leaves it."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        drop_output()
        raise OutputClosed("the output is closed")


def console() -> Console:
    """The console of whatever stdout is now, looking through the proxy of a live display."""
    stream = sys.stdout
    return _console(stream.rich_proxied_file if isinstance(stream, FileProxy) else stream)


@cache
def _console(stream: IO[str]) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return _Screen(file=stream, width=width, highlight=False, emoji=False, markup=False)


def foreign(text: str, style: str = "") -> Text:
    """A string of data, of a model or of a run for a panel or a table: shown as it is."""
    return Text(printable(text), style)


def name_of(text: object, style: str = "") -> Text:
    """A name or path of others for a panel or a table, on one line."""
    return Text(one_line(str(text)), style)


def line(text: str, *, style: str = "", whole: bool = False) -> None:
    """One line, markup taken literally.

    On a terminal it is broken between words, and what follows is indented, but for one that shall be
    copied (`whole`); elsewhere it stays whole.
    """
    screen = console()
    wrapped = screen.is_terminal and not whole
    shown = (
        "\n".join(_wrapped(each, screen.width) for each in text.split("\n")) if wrapped else text
    )
    screen.print(foreign(shown, style), soft_wrap=True)


def _wrapped(text: str, width: int) -> str:
    body = text.lstrip(" ")
    indent = " " * (len(text) - len(body))
    return textwrap.fill(
        printable(body),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )

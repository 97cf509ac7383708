"""The screen: colours and boxes on a terminal, plain lines in a file or a pipe.

Markup is off: a string of data, of a model or of a run is never read as instructions, neither by rich
nor (config.printable) by the terminal.
"""

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import IO, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.file_proxy import FileProxy
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from rlhf_cli.config.printable import drop_output, one_line, printable

PLAIN_WIDTH = 100  # columns where the output is no terminal
UNLIMITED = 10_000  # columns with which the natural width of a table is measured
T = TypeVar("T")


class OutputClosed(BrokenPipeError):
    """The reader of the output has closed it."""


class _Screen(Console):
    """A console whose plain strings are escaped and that never ends the process."""

    def render_str(self, text: str, **how) -> Text:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().render_str(printable(text), **how)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield the segments without control characters, whatever built the text."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        drop_output()
        raise OutputClosed("the output is closed")


def console() -> Console:
    """Return the console of the current stdout, looking through the proxy of a live display."""
    stream = sys.stdout
    return _console(stream.rich_proxied_file if isinstance(stream, FileProxy) else stream)


@cache
def _console(stream: IO[str]) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return _Screen(file=stream, width=width, highlight=False, emoji=False, markup=False)


def plain_text(text: str, style: str = "") -> Text:
    """Return a string of data, of a model or of a run for a panel or a table, unchanged."""
    return Text(printable(text), style)


def plain_name(text: object, style: str = "") -> Text:
    """Return an external name or path for a panel or a table, on one line."""
    return Text(one_line(str(text)), style)


def line(text: str, *, style: str = "", whole: bool = False) -> None:
    """Print one line, markup taken literally.

    On a terminal it is broken between words, and what follows is indented, but for one that is to be
    copied (`whole`); elsewhere it stays whole.
    """
    screen = console()
    wrapped = screen.is_terminal and not whole
    shown = (
        "\n".join(_wrapped(each, screen.width) for each in text.split("\n")) if wrapped else text
    )
    screen.print(plain_text(shown, style), soft_wrap=True)


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


@contextmanager
def status(what: str, *, silent: bool = False) -> Iterator[None]:
    """Show what the process does inside the block: a spinner on a terminal, one line elsewhere.

    silent: one of several processes prints.
    """
    screen = console()
    if silent:
        yield
    elif screen.is_terminal:
        with screen.status(plain_text(f"{one_line(what)} ...", "dim"), spinner="line"):
            yield
    else:
        line(f"  {one_line(what)} ...", style="dim")
        yield


def print_blocks(columns: Sequence[T], table_of: Callable[[Sequence[T]], Table]) -> None:
    """Print table_of(columns), with as many of the columns at a time as the screen holds."""
    while columns:
        counts = range(len(columns), 1, -1)
        count = next((n for n in counts if fits(table_of(columns[:n]))), 1)
        console().print(table_of(columns[:count]))
        columns = columns[count:]


def fits(table: Table) -> bool:
    """Return whether the screen is wide enough for every cell as it is."""
    options = console().options.update(max_width=UNLIMITED)
    return Measurement.get(console(), options, table).maximum <= console().width

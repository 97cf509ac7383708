"""What a process does before and between its steps: a spinner on a terminal, one line elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rlhf_cli.config.printable import one_line
from rlhf_cli.telemetry.console import console, foreign, line


@contextmanager
def doing(what: str, *, silent: bool = False) -> Iterator[None]:
    """Say what is done inside the block. silent: of several processes one speaks."""
    screen = console()
    if silent:
        yield
    elif screen.is_terminal:
        with screen.status(foreign(f"{one_line(what)} ...", "dim"), spinner="line"):
            yield
    else:
        line(f"  {one_line(what)} ...", style="dim")
        yield

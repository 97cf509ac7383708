"""Tables with more columns than the screen holds: printed in several blocks, nothing cut."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.measure import Measurement
from rich.table import Table

from rlhf_cli.telemetry.console import console

T = TypeVar("T")
UNLIMITED = 10_000


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

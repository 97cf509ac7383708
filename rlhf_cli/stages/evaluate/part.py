"""What every part of the evaluation has in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.runtime.engine import Network


class Measured(Protocol):
    """Something that is measured of every policy by asking it."""

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return the figures of a policy. policy: its name in the closing table.

        All processes call it together, and all of them get every figure.
        """
        ...


class Part(Measured, Protocol):
    """A part of the evaluation: diversity, suites of questions, ...

    notes: what was left out or could not be measured, a line each.
    """

    @property
    def notes(self) -> Sequence[str]: ...

    def write(self, out: Path) -> None:
        """Write the part's own files into the folder of the evaluation; only the main process calls it."""
        ...

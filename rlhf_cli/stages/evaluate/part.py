"""What every part of the evaluation has in common."""

from typing import Protocol

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.runtime.engine import Network


class Part(Protocol):
    """Something that is measured of every policy by asking it: diversity, suites of questions, ..."""

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return the figures of a policy. policy: its name in the closing table.

        All processes call it together, and all of them get every figure.
        """
        ...

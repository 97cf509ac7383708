"""What the stage rationales leaves: the demonstrations, and every rationale with why it was dropped."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlhf_cli.artifacts.layout import DEMONSTRATIONS
from rlhf_cli.evaluation.rationale_checks import Rationale
from rlhf_cli.stages.drawn_files import write_rows

EVERY = "rationales.jsonl"


def write_rationales(out: Path, found: Sequence[Rationale], dropped: Sequence[str | None]) -> None:
    """Write what was kept as demonstrations, and every rationale with why it was dropped."""
    pairs = list(zip(found, dropped, strict=True))
    write_rows(out / DEMONSTRATIONS, [one.demonstration() for one, why in pairs if why is None])
    write_rows(out / EVERY, [asdict(one) | {"dropped": why} for one, why in pairs])

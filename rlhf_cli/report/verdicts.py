"""The verdicts of an evaluation below its table: each in a sentence, with its evidence."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlhf_cli.artifacts.manifest import ArtifactError
from rlhf_cli.artifacts.results import read_results
from rlhf_cli.config.printable import one_line
from rlhf_cli.telemetry.console import line

STYLES = MappingProxyType({"gained": "bold green", "hacked": "bold red", "unclear": "bold yellow"})


def print_verdicts(folder: Path) -> None:
    """Print the verdicts kept in the folder of the evaluation, and what could not be measured."""
    try:
        results = read_results(folder)
    except ArtifactError as refusal:
        line(f"  {one_line(str(refusal))}", style="yellow")
        return
    if results is None:
        return
    for one in results.verdicts:
        line(one_line(f"{one['policy']}: {one['verdict']}"), style=STYLES.get(one["verdict"], ""))
        for text in sentences(one):
            line(f"  {one_line(text)}", style="dim")
    for text in results.missing:
        line(f"  {one_line(text)}", style="yellow")


def sentences(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield a verdict's sentence, its evidence, what to doubt, what would decide, and best/."""
    yield one["text"]
    yield from one["evidence"]
    yield from (f"to doubt: {text}" for text in one["doubt"])
    if one.get("decide"):
        yield f"to decide: {one['decide']}"
    if one.get("best"):
        yield one["best"]

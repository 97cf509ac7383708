"""evaluate/results.json: every figure of an evaluation, one form for all of them, and the verdicts.

A figure is one number with its 95 % interval and how many observations it is of. What it is a number of
stands beside it: part and measure, and where they matter policy, judge, prompts and group. So figures of
several runs are the same one exactly where all of these are equal.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.manifest import ArtifactError, load_version, read_errors
from rlhf_cli.artifacts.store import write_text

RESULTS = "results.json"
REFERENCE = "reference"  # group of win rates over the responses that the data have to the prompts
VERSION = 1
REMEDY = "run the stage evaluate again"
Interval = tuple[float, float, float]


@dataclass(slots=True, frozen=True, kw_only=True)
class Figure:
    """One number of an evaluation. low, high: its 95 % interval, None where it has none.

    part: the section of the page. policy: whose answers (its name in the closing table). judge: who
    preferred them. prompts: the set of prompts, None for the held-out ones. group: what else
    distinguishes figures of one measure (a subset, a kind of probe, a bin).
    """

    part: str
    measure: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int
    policy: str | None = None
    judge: str | None = None
    prompts: str | None = None
    group: str | None = None

    @classmethod
    def of(cls, interval: Interval, **names: Any) -> "Figure":
        """Return the figure of a (mean, low, high); an infinite end is that of no interval."""
        value, low, high = interval
        ends = (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)
        return cls(value=value, low=ends[0], high=ends[1], **names)


@dataclass(slots=True, kw_only=True)
class Results:
    """All figures of an evaluation. verdicts: a dict per policy. curves: name -> points to draw.

    missing: what was asked for and could not be measured, a line each.
    """

    figures: list[Figure] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def write_results(folder: Path, results: Results) -> None:
    """Write results.json into the folder of the evaluation; what is None is left out of a figure."""
    content = {"version": VERSION} | {
        one.name: getattr(results, one.name) for one in fields(Results)
    }
    content["figures"] = [_known(asdict(one)) for one in results.figures]
    text = json.dumps(content, indent=1, allow_nan=False)
    write_text(folder / RESULTS, text + "\n")


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def read_results(folder: Path) -> Results | None:
    """Return what results.json holds, None where there is no such file.

    ArtifactError where it is of another version, or cannot be read.
    """
    path = folder / RESULTS
    if not path.is_file():
        return None
    with read_errors(path):
        try:
            content = load_version(path, VERSION, remedy=REMEDY)
            figures = [Figure(**one) for one in content.pop("figures")]
            return Results(figures=figures, **content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found = f"{path} holds no results of this program"
            raise ArtifactError(found, REMEDY) from error


def select(figures: Sequence[Figure], **names: Any) -> list[Figure]:
    """Return the figures whose fields have these values."""
    return [
        one for one in figures if all(getattr(one, name) == value for name, value in names.items())
    ]

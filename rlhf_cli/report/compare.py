"""Runs compared: what differs in configuration and data, and the figures each one ends with."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_cli.artifacts.manifest import StageManifest
from rlhf_cli.config.keys import flatten
from rlhf_cli.report.config_page import flow
from rlhf_cli.report.run_state import Headlines, RunState
from rlhf_cli.report.table import LABELS, Interval

# What a run is called and where it lies, and what was asked of one start of it.
LEFT_OUT = ("name", "runs_dir", "stage", "dry_run", "resume", "model.lr")
SEED = "seed"
SECTIONS = {"sft": "sft", "rm": "rm", "ppo": "ppo", "evaluation": "evaluate"}  # key -> its stage


@dataclass(slots=True, kw_only=True)
class Column:
    """One run, or several that differ in the seed alone. figures: (group, name) -> each run's."""

    name: str
    figures: dict[tuple[str, str], list[Interval]]
    num_runs: int = 1


@dataclass(slots=True, kw_only=True)
class Comparison:
    """differences: key -> the value of each run, in the order of `names`."""

    names: list[str]
    differences: dict[str, list[str]]
    columns: list[Column] = field(default_factory=list)


def compare(
    runs: Sequence[RunState], headlines: Headlines, *, merge_seeds: bool = False
) -> Comparison:
    """Compare runs. merge_seeds: those that differ in the seed alone are one column."""
    settings = [dict(_settings(run)) for run in runs]
    names = [run.name if _unique(run, runs) else str(run.folder) for run in runs]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    values = {key: [one.get(key, "-") for one in settings] for key in keys}
    differences = {key: found for key, found in values.items() if len(set(found)) > 1}
    columns = [
        Column(name=name, figures={key: [value] for key, value in _figures(run, headlines)})
        for name, run in zip(names, runs, strict=True)
    ]
    if merge_seeds:
        columns = _merged(columns, settings)
    return Comparison(names=names, differences=differences, columns=columns)


def _unique(run: RunState, runs: Sequence[RunState]) -> bool:
    return sum(other.name == run.name for other in runs) == 1


def _settings(run: RunState) -> Iterator[tuple[str, str]]:
    """(key, value) of the configuration and data of all stages; one value where they agree."""
    found: dict[str, dict[str, str]] = {}
    for stage, manifest in run.manifests.items():
        for key, value in flatten(_config(run, stage)).items():
            if key not in LEFT_OUT and SECTIONS.get(key.split(".")[0], stage) == stage:
                found.setdefault(key, {})[stage] = flow(value)
        for role, sources in manifest.data.items():
            content = ", ".join(f"{source} {digest[:8]}" for source, digest in sources.items())
            found.setdefault(f"content of data.{role}", {})[stage] = content
        for role, digest in manifest.parents.items():
            if role not in run.manifests:
                found.setdefault(f"model {role}", {})[stage] = digest[:40]
        found.setdefault("made by", {})[stage] = f"{manifest.version} {(manifest.commit or '')[:7]}"
    for key, by_stage in found.items():
        alike = len(set(by_stage.values())) == 1
        words = [value if alike else f"{value} ({stage})" for stage, value in by_stage.items()]
        yield key, words[0] if alike else ", ".join(words)


def _config(run: RunState, stage: str) -> dict[str, Any]:
    path = run.folder / stage / "config.json"  # verified with its stage
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _figures(run: RunState, headlines: Headlines) -> Iterator[tuple[tuple[str, str], Interval]]:
    """The numbers that each stage ends with, then those of the closing table."""
    for stage, manifest in run.manifests.items():
        for name in headlines[stage]:
            if (value := manifest.metrics.get(name)) is not None:
                yield (stage, name.split("/")[-1]), _interval(manifest, name, value)
    for policy, row in (run.table or {"rows": {}})["rows"].items():
        for metric, found in row.items():
            if found is not None:
                yield (policy, str(LABELS.get(metric, metric))), found


def _interval(manifest: StageManifest, name: str, value: float) -> Interval:
    low, high = (manifest.metrics.get(f"{name}_{end}") for end in ("low", "high"))
    return (value, value, value) if low is None or high is None else (value, low, high)


def _merged(columns: Sequence[Column], settings: Sequence[Mapping[str, str]]) -> list[Column]:
    """Runs with the same settings but for the seed become one column."""
    groups: dict[str, list[Column]] = {}
    for column, own in zip(columns, settings, strict=True):
        alike = json.dumps({key: value for key, value in own.items() if key != SEED})
        groups.setdefault(alike, []).append(column)
    return [_together(group) for group in groups.values()]


def _together(group: Sequence[Column]) -> Column:
    keys = dict.fromkeys(key for column in group for key in column.figures)
    figures = {key: [f for one in group for f in one.figures.get(key, [])] for key in keys}
    more = f" and {len(group) - 1} other seeds" if len(group) > 1 else ""
    return Column(name=group[0].name + more, figures=figures, num_runs=len(group))

"""Runs compared: what differs in configuration and data, and the figures each one ends with."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_cli.artifacts.layout import CONFIG
from rlhf_cli.artifacts.manifest import StageManifest
from rlhf_cli.config.keys import flatten
from rlhf_cli.data.embedded import scheme_of
from rlhf_cli.report.config_page import flow
from rlhf_cli.report.run_state import Headlines, RunState
from rlhf_cli.report.table import Interval, label_of

Key = tuple[str, str]  # (stage or policy, figure)

# A run's name and folder, and the options of one start.
LEFT_OUT = ("name", "runs_dir", "stage", "dry_run", "resume", "model.lr")
SEED, STAGES_KEY = "seed", "stages"
SECTIONS = {"sft": "sft", "rm": "rm", "ppo": "ppo", "evaluation": "evaluate"}  # key -> its stage


@dataclass(slots=True, kw_only=True)
class Column:
    """One run, or several that differ in the seed alone.

    settings: key -> value in words. figures: the value that each of the runs ended with.
    """

    name: str
    settings: dict[str, str]
    figures: dict[Key, list[Interval]]
    num_runs: int = 1


def compare(
    runs: Sequence[RunState], headlines: Headlines, *, merge_seeds: bool = False
) -> list[Column]:
    """Return a column for each run. merge_seeds: one for those that differ in the seed alone."""
    columns = [
        Column(
            name=name,
            settings=dict(_settings(run)),
            figures={key: [value] for key, value in _figures(run, headlines)},
        )
        for name, run in zip(names_of(runs), runs, strict=True)
    ]
    return _merged(columns) if merge_seeds else columns


def differences(columns: Sequence[Column]) -> dict[str, list[str]]:
    """Return the settings in which columns differ; "-" for one whose stages do not have it."""
    keys = dict.fromkeys(key for column in columns for key in column.settings)
    known = {key: {c.settings[key] for c in columns if key in c.settings} for key in keys}
    apart = [key for key in keys if len(known[key]) > 1]
    return {key: [column.settings.get(key, "-") for column in columns] for key in apart}


def differing_figures(columns: Sequence[Column]) -> list[Key]:
    """Return the figures that several columns have and that differ; of one column all of them."""
    keys = dict.fromkeys(key for column in columns for key in column.figures)
    known = {key: [c.figures[key] for c in columns if key in c.figures] for key in keys}
    return [
        key
        for key, values in known.items()
        if len(columns) == 1 or (len(values) > 1 and values != [values[0]] * len(values))
    ]


def names_of(runs: Sequence[RunState]) -> list[str]:
    """Return the name of each run, its folder where several have the same name."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.folder)
        for name, run in zip(names, runs, strict=True)
    ]


def _settings(run: RunState) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of the configuration and data of all stages; one value where they agree."""
    found: dict[str, dict[str, str]] = {}
    for stage, manifest in run.manifests.items():
        for key, value in (_config_of(run, stage) | _sources_of(manifest, run)).items():
            found.setdefault(key, {})[stage] = value
    yield STAGES_KEY, ", ".join(run.manifests)
    for key, by_stage in found.items():
        alike = len(set(by_stage.values())) == 1
        words = [value if alike else f"{value} ({stage})" for stage, value in by_stage.items()]
        yield key, words[0] if alike else ", ".join(words)


def _config_of(run: RunState, stage: str) -> dict[str, str]:
    """Return the keys that a stage can read: no other stage's section."""
    return {
        key: flow(value)
        for key, value in flatten(_config(run, stage)).items()
        if key not in LEFT_OUT and SECTIONS.get(key.split(".")[0], stage) == stage
    }


def _sources_of(manifest: StageManifest, run: RunState) -> dict[str, str]:
    """Return data and models by their content, and the version of the code."""
    data = {
        f"content: {role}": ", ".join(
            source if scheme_of(source) else f"{source} {digest[:8]}"
            for source, digest in sources.items()
        )
        for role, sources in manifest.data.items()
    }
    others = {
        role: digest for role, digest in manifest.parents.items() if role not in run.manifests
    }
    models = {f"content: {role}": digest[:40] for role, digest in others.items()}
    return data | models | {"made by": f"{manifest.version} {(manifest.commit or '')[:7]}"}


def _config(run: RunState, stage: str) -> dict[str, Any]:
    path = run.folder / stage / CONFIG  # verified with its stage
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _figures(run: RunState, headlines: Headlines) -> Iterator[tuple[Key, Interval]]:
    """Yield the final numbers of each stage, then those of the closing table."""
    for stage, manifest in run.manifests.items():
        for name in headlines[stage]:
            if (value := manifest.metrics.get(name)) is not None:
                yield (stage, name.split("/")[-1]), _interval(manifest, name, value)
    for policy, row in (run.table or {"rows": {}})["rows"].items():
        for metric, found in row.items():
            if found is not None:
                yield (policy, label_of(metric)), found


def _interval(manifest: StageManifest, name: str, value: float) -> Interval:
    low, high = (manifest.metrics.get(f"{name}_{end}") for end in ("low", "high"))
    return (value, value, value) if low is None or high is None else (value, low, high)


def _merged(columns: Sequence[Column]) -> list[Column]:
    """Merge runs with the same settings but for the seed into one column."""
    groups: dict[str, list[Column]] = {}
    for column in columns:
        alike = json.dumps({k: value for k, value in column.settings.items() if k != SEED})
        groups.setdefault(alike, []).append(column)
    return [_together(group) for group in groups.values()]


def _together(group: Sequence[Column]) -> Column:
    first, keys = group[0], dict.fromkeys(key for column in group for key in column.figures)
    seeds = ", ".join(column.settings.get(SEED, "-") for column in group)
    return Column(
        name=first.name + (f" and {len(group) - 1} more" if len(group) > 1 else ""),
        settings=first.settings | {SEED: seeds},
        figures={key: [f for one in group for f in one.figures.get(key, [])] for key in keys},
        num_runs=len(group),
    )

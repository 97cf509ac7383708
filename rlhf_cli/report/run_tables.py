"""Tables of the page: what the stages cost, the reward model's report, and what everything was made of."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rlhf_cli.artifacts.lock import last_command
from rlhf_cli.artifacts.manifest import StageManifest
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.core.means import mean_of_known
from rlhf_cli.report.figure_charts import figure_cell
from rlhf_cli.report.run_files import RunFiles
from rlhf_cli.report.run_groups import Group, over_seeds
from rlhf_cli.report.show import MINUTES, made_by
from rlhf_cli.report.study_charts import Block
from rlhf_cli.telemetry.progress import duration, short

HASH = 12  # characters of a hash that are shown; manifest.json has all of them
# metric -> heading; a column stands where a stage has it
COSTS = MappingProxyType(
    {
        "cost/seconds": "time",
        "cost/trained_tokens": "tokens trained on",
        "cost/sampled_tokens": "tokens sampled",
        "cost/scored_responses": "responses scored",
        "cost/energy_kwh": "energy, kWh",
        "cost/money": "money",
    }
)
REWARD_LABELS = MappingProxyType(
    {
        "num_prompts": "prompts",
        "num_pairs": "pairs",
        "accuracy": "accuracy",
        "accuracy_ceiling": "accuracy that the annotators' noise allows",
        "accuracy_by_k": "accuracy by number of responses",
        "accuracy_by_length": "accuracy by length",
        "length_baseline": "preferring the longer response",
        "score_length_correlation": "correlation of score and length",
        "margin": "score of the preferred minus the other, mean",
        "ece": "calibration error (ECE)",
        "num_ties": "ties",
        "score_p999": "99.9th percentile of the scores of people's responses",
        "tie_gap": "difference of scores in ties, mean",
        "pair_gap": "difference of scores in pairs, mean",
        "tie_probability": "probability of a tie where there is one",
    }
)


def cost_table(groups: Sequence[Group]) -> Block | None:
    """Return a row per stage with what it cost, the mean over seeds, and its most telling figures."""
    stages = [(stage, group) for stage in STAGES for group in groups if _manifests(group, stage)]
    if not stages:
        return None
    known = {
        name for stage, group in stages for one in _manifests(group, stage) for name in one.metrics
    }
    costs = [name for name in COSTS if name in known]
    rows = []
    for stage, group in stages:
        found = _manifests(group, stage)
        about = [group.label or STAGES[stage].title, *_headline(stage, found)]
        rows.append({"head": [stage, *about], "cells": [_cost(name, found) for name in costs]})
    if len(groups) == 1 and len(rows) > 1:
        manifests = [list(run.state.manifests.values()) for run in groups[0].runs]
        sums = [_sum(name, manifests) for name in costs]
        rows.append({"head": ["all stages"], "cells": sums})
    return _table([[COSTS[name]] for name in costs], rows)


def _manifests(group: Group, stage: str) -> list[StageManifest]:
    return [m for run in group.runs if (m := run.state.manifests.get(stage)) is not None]


def _cost(name: str, manifests: Sequence[StageManifest]) -> list[str]:
    """Return the mean of a cost over the runs that know it."""
    mean = mean_of_known(one.metrics.get(name) for one in manifests)
    return ["-"] if mean is None else [_amount(name, mean)]


def _sum(name: str, runs: Sequence[Sequence[StageManifest]]) -> list[str]:
    """Return the sum over the stages of a run, the mean of it over runs."""
    sums = [sum((one.metrics.get(name) or 0.0 for one in stages), 0.0) for stages in runs]
    return [_amount(name, sum(sums) / len(sums))]


def _amount(name: str, value: float) -> str:
    if name == "cost/seconds":
        return duration(value)
    return f"{value:,.0f}" if name.endswith(("tokens", "responses")) else f"{value:,.4f}"


def _headline(stage: str, manifests: Sequence[StageManifest]) -> list[str]:
    """Return a line with the stage's most telling figures; the evaluation's are the rest of the page."""
    words = []
    for name in STAGES[stage].headline:
        mean = mean_of_known(one.metrics.get(name) for one in manifests)
        if mean is not None:
            words.append(f"{name.rpartition('/')[2].replace('_', ' ')} {short(mean)}")
    return [", ".join(words)] if words else []


def reward_report_table(groups: Sequence[Group]) -> Block | None:
    """Return the reward model's figures on held-out comparisons, a column per group of runs."""
    found = [
        (
            group,
            [(run.seed, dict(_flat(run.reward_report))) for run in group.runs if run.reward_report],
        )
        for group in groups
    ]
    found = [(group, some) for group, some in found if some]
    labels = dict.fromkeys(label for _, some in found for _, one in some for label in one)
    if not labels:
        return None
    rows = []
    for label in labels:
        cells = [[(seed, one[label]) for seed, one in some if label in one] for _, some in found]
        rows.append({"head": [label], "cells": [_mean_cell(some) for some in cells]})
    return _table([[group.column(None)] for group, _ in found], rows)


def _mean_cell(found: Sequence[tuple[int, Any]]) -> list[str]:
    if not found:
        return ["-"]
    mean = over_seeds(found)
    return figure_cell(mean["value"], mean["low"], mean["high"])


def _flat(report: Mapping[str, Any]) -> Iterator[tuple[str, tuple[float, Any, Any]]]:
    """Yield (label, (value, low, high)) of numbers, of intervals, and of intervals by name."""
    for key, found in report.items():
        label = REWARD_LABELS.get(key, key.replace("_", " "))
        by_name = found if isinstance(found, Mapping) else {"": found}
        for name, one in by_name.items():
            full = f"{label}: {name.replace('_', ' ')}" if name else label
            if isinstance(one, int | float):
                yield full, (one, None, None)
            elif isinstance(one, list) and len(one) == 3 and isinstance(one[0], int | float):
                yield full, (one[0], one[1], one[2])


def lineage_blocks(run: RunFiles) -> list[Block]:
    """Return the command of a run, and of each stage by what it was made and of what, with hashes."""
    rows = [
        {"name": "command", "text": last_command(run.state.folder) or "", "code": True},
        {"name": "seed", "text": str(run.seed), "code": False},
    ]
    made = [
        {"head": [stage, one.finished[:MINUTES]], "cells": [list(cell) for cell in _made_of(one)]}
        for stage, one in run.state.manifests.items()
    ]
    columns = [["made by"], ["steps"], ["made of"], ["hash of the result"]]
    return [
        {"kind": "facts", "rows": [row for row in rows if row["text"]]},
        _table(columns, made) | {"prose": True},
    ]


def _made_of(manifest: StageManifest) -> Iterator[Sequence[str]]:
    sources = [f"{r} {manifest.origins.get(r, '')} {d[:HASH]}" for r, d in manifest.parents.items()]
    sources += [
        f"{role} {source}" + ("" if digest == source else f" {digest[:HASH]}")
        for role, found in manifest.data.items()
        for source, digest in found.items()
    ]
    yield [f"rlhf {made_by(manifest)}"]
    yield [str(manifest.step)]
    yield sources or ["-"]
    yield [manifest.digest[:HASH]]


def _table(columns: Sequence[list[str]], rows: Sequence[Mapping[str, Any]]) -> Block:
    return {"kind": "table", "title": "", "columns": list(columns), "rows": list(rows)}

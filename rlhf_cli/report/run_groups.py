"""The columns of the page: a policy of a run, or of several runs that differ in the seed alone.

Figures of such runs are their mean, with Student's 95 % interval over seeds; those of one run are its own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_cli.artifacts.manifest import StageManifest, canonical_hash
from rlhf_cli.artifacts.results import Figure
from rlhf_cli.report.compare import names_of
from rlhf_cli.report.run_files import RunFiles
from rlhf_cli.report.study_curves import by_seed_of, summary

NOT_COMPARED = ("seed", "data.date")
COLOURS = 9  # c1 to c9 of page.css
NEUTRAL = "neutral"
BETWEEN = " · "  # a policy and its runs, in the name of a column
BASE = "base"  # the model that nothing of the run has trained
Found = tuple[float, float | None, float | None]


@dataclass(slots=True, kw_only=True, frozen=True)
class Group:
    """Runs that differ in the seed alone. label: their name in columns, empty for the only group."""

    name: str
    label: str
    runs: Sequence[RunFiles]

    def column(self, policy: str | None) -> str:
        """Return the name of the column of a policy, or of what is no policy's."""
        return BETWEEN.join(one for one in (policy, self.label) if one) or "figure"


@dataclass(slots=True, kw_only=True, frozen=True)
class Mean:
    """A figure of a column: of one run, or the mean of several. figure: with its names, of the first."""

    figure: Figure
    column: str
    value: float
    low: float | None
    high: float | None
    count: int
    runs: int


def grouped(runs: Sequence[RunFiles]) -> list[Group]:
    """Return the runs in groups whose stages were made of the same, but for the seed."""
    found: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        found.setdefault(_identity(run.state.manifests), []).append(place)
    names = names_of([run.state for run in runs])
    groups = []
    for places in found.values():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        name = names[places[0]] + more
        label = name if len(found) > 1 else ""
        groups.append(Group(name=name, label=label, runs=[runs[i] for i in places]))
    return groups


def _identity(manifests: Mapping[str, StageManifest]) -> str:
    """Return the hash of all that the stages of a run depend on, but the seed and the day."""
    stages = {
        stage: {
            "config": {k: v for k, v in one.config.items() if k not in NOT_COMPARED},
            "data": {role: list(found.values()) for role, found in one.data.items()},
            "parents": {r: digest for r, digest in one.parents.items() if r not in manifests},
        }
        for stage, one in manifests.items()
    }
    return canonical_hash(stages)


def heading_of(column: str) -> list[str]:
    """Return the heading of a column: the policy, and below it its runs where there are several groups."""
    return column.split(BETWEEN, 1)


def policies_of(groups: Sequence[Group]) -> list[str]:
    """Return the names of all policies: of the closing tables, then of figures and answers."""
    runs = [run for group in groups for run in group.runs]
    tables = [policy for run in runs for policy in (run.state.table or {"rows": {}})["rows"]]
    figures = [one.policy for run in runs for one in run.results.figures if one.policy]
    answers = [str(one["model"]) for run in runs for one in run.answers]
    return list(dict.fromkeys([*tables, *figures, *answers]))


def colours_of(groups: Sequence[Group]) -> dict[str, str]:
    """Return the colour of every column, in the order of the columns: by policy, then by group."""
    policies = policies_of(groups)
    columns = [(policy, group.column(policy)) for policy in policies for group in groups]
    coloured = [column for policy, column in columns if policy != BASE]
    return {
        column: NEUTRAL if policy == BASE else f"c{coloured.index(column) % COLOURS + 1}"
        for policy, column in columns
    }


def over_seeds(found: Sequence[tuple[int, Found]]) -> dict[str, Any]:
    """Return value, low, high and the number of runs of (seed, figure) pairs."""
    if len(found) == 1:
        value, low, high = found[0][1]
        return {"value": value, "low": low, "high": high, "runs": 1}
    known = [(seed, (v, v if low is None else low, v if high is None else high))
             for seed, (v, low, high) in found]  # fmt: skip
    mean = summary(by_seed_of(known))
    ends = (mean["low"], mean["high"])
    no_interval = any(end is None or not math.isfinite(end) for end in ends)
    return mean | ({"low": None, "high": None} if no_interval else {})


def means_of(groups: Sequence[Group]) -> list[Mean]:
    """Return the figures of results.json, by part and measure as the runs have them, then by column."""
    found = [mean for group in groups for mean in _means(group)]
    columns = [*colours_of(groups), *dict.fromkeys(one.column for one in found)]
    return sorted(found, key=lambda one: columns.index(one.column))


def _means(group: Group) -> Iterator[Mean]:
    by_name: dict[tuple, list[tuple[int, Figure]]] = {}
    for run in group.runs:
        for one in run.results.figures:
            name = (one.part, one.measure, one.policy, one.judge, one.prompts, one.group)
            by_name.setdefault(name, []).append((run.seed, one))
    for found in by_name.values():
        first = found[0][1]
        yield Mean(
            figure=first,
            column=group.column(first.policy),
            count=sum(one.count for _, one in found),
            **over_seeds([(seed, (one.value, one.low, one.high)) for seed, one in found]),
        )


def closing_rows(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return {column: {metric: (value, low, high)}} of the closing tables."""
    rows = {}
    for policy in policies_of(groups):
        for group in groups:
            runs = [
                (run.seed, run.state.table["rows"].get(policy))
                for run in group.runs
                if run.state.table
            ]
            known = [(seed, row) for seed, row in runs if row]
            metrics = dict.fromkeys(name for _, row in known for name in row)
            found = {n: [(seed, row[n]) for seed, row in known if row.get(n)] for n in metrics}
            if known:
                rows[group.column(policy)] = {n: _interval(some) for n, some in found.items()}
    return rows


def _interval(found: Sequence[tuple[int, Found]]) -> tuple[float, float, float] | None:
    if not found:
        return None
    mean = over_seeds(found)
    value = mean["value"]
    return value, *(value if mean[end] is None else mean[end] for end in ("low", "high"))

"""Figures of tasks, from judged answers: means over templates, then over clusters and groups."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import fmean, stdev
from typing import Any

import torch

from rlhf_cli.core.estimates import mean_interval, wilson_interval
from rlhf_cli.core.means import mean_weights, members
from rlhf_cli.data.tasks.task import Task

RIGHT_OR_WRONG = ("accuracy", "exact_match")  # metrics with no value between 0 and 1


class Asked(Enum):
    """How a model is asked: for the answer, for a chain of thought, or for several that vote."""

    direct = "direct"
    chain = "CoT"
    votes = "CoT + self-consistency"


@dataclass(slots=True, frozen=True, kw_only=True)
class Outcome:
    """One judged answer. row: what its renderings by several templates have in common.

    read: the answer read in the response, None where it is unreadable. response: of several the first.
    value: in [0, 1]. unreadable: share of the responses. chance: the expected value of a random option,
    None for a free answer. loss: minus the log-prob per token of the right answer, end token included;
    None where it is not computed. ranks: the value by each way to rank. votes: {n: mean value over the
    votes of n samples}.
    """

    task: str
    template: str
    shots: int
    asked: Asked
    row: str
    read: str | None
    response: str
    value: float
    unreadable: float = 0.0
    chance: float | None = None
    loss: float | None = None
    ranks: Mapping[str, float] = field(default_factory=dict)
    votes: Mapping[int, float] = field(default_factory=dict)


def figure(outcomes: Sequence[Outcome], metric: str) -> dict[str, Any]:
    """Return the figure of one task, asked in one way, as JSON values.

    value, and every other mean: over templates, each the mean over its rows. low, high: the 95 %
    interval of the value over rows, each the mean over its templates. template_std: the standard
    deviation over templates (FLAN, figure 9), None for one. loss: None where no outcome has one.
    """
    templates = _by(outcomes, lambda one: one.template)
    values = {name: fmean(one.value for one in some) for name, some in templates.items()}
    value = fmean(values.values())
    rows = [fmean(o.value for o in some) for some in _by(outcomes, lambda one: one.row).values()]
    low, high = _interval(value, rows, metric)
    ranked = all(one.chance is not None for one in outcomes)
    means = [
        _means([{"chance": one.chance or 0.0, "unreadable": one.unreadable} for one in some])
        for some in templates.values()
    ]
    chance = _means(means)["chance"] if ranked else None
    losses = [
        _means([{"loss": one.loss} for one in some if one.loss is not None])
        for some in templates.values()
    ]
    return {
        "value": value,
        "low": low,
        "high": high,
        "template_std": stdev(values.values()) if len(values) > 1 else None,
        "templates": values,
        "rows": len(rows),
        "unreadable": _means(means)["unreadable"],
        "chance": chance,
        "near_chance": chance is not None and low <= chance <= high,
        "loss": _means(losses).get("loss"),
        "ranks": _means([_means([o.ranks for o in some]) for some in templates.values()]),
        "votes": _means([_means([o.votes for o in some]) for some in templates.values()]),
    }


def _interval(value: float, rows: list[float], metric: str) -> tuple[float, float]:
    """Return the interval over rows: Wilson's where each is right or wrong, else Student's."""
    if metric in RIGHT_OR_WRONG:
        _, low, high = wilson_interval(min(value, 1.0) * len(rows), len(rows))
        return low, high
    _, low, high = mean_interval(torch.tensor(rows, dtype=torch.float64))
    shift = value - fmean(rows)  # templates with fewer rows than others
    return (max(0.0, low + shift), min(1.0, high + shift)) if math.isfinite(low) else (0.0, 1.0)


def _means(found: Sequence[Mapping]) -> dict[str, float]:
    """Return the mean of each key over those that have it."""
    keys = dict.fromkeys(key for one in found for key in one)
    return {str(key): fmean(one[key] for one in found if key in one) for key in keys}


def _by(outcomes: Iterable[Outcome], key: Callable[[Outcome], Any]) -> dict[Any, list[Outcome]]:
    groups: dict[Any, list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(key(one), []).append(one)
    return groups


def table_rows(
    outcomes: Mapping[str, Sequence[Outcome]], tasks: Sequence[Task]
) -> list[dict[str, Any]]:
    """Return a row per model, number of shots and way to ask: {model, shots, asked, tasks, means}.

    outcomes: of each model, in the table's order.
    """
    found = []
    for model, judged in outcomes.items():
        asked = _by(judged, lambda one: (one.shots, one.asked))
        for shots, way in sorted(asked, key=lambda key: (key[0], list(Asked).index(key[1]))):
            by_task = _by(asked[shots, way], lambda one: one.task)
            figures = {
                t.name: figure(by_task[t.name], t.metric) for t in tasks if t.name in by_task
            }
            found.append(
                {"model": model, "shots": shots, "asked": way.name, "tasks": figures}
                | means(figures, tasks)
            )
    return found


def means(figures: Mapping[str, Mapping[str, Any]], tasks: Sequence[Task]) -> dict[str, Any]:
    """Return the means of the tasks' values: over each cluster, over the clusters (macro), over groups.

    intervals: {the same keys: (low, high) of the mean}.
    """
    clusters = members(figures, {task.name: task.clusters for task in tasks})
    groups = members(figures, {task.name: task.groups for task in tasks})
    of_clusters = _means_of(figures, clusters)
    return {
        "clusters": of_clusters,
        "macro": fmean(of_clusters.values()) if clusters else None,
        "groups": _means_of(figures, groups),
        "intervals": {
            "clusters": {name: mean_bounds(figures, [some]) for name, some in clusters.items()},
            "macro": mean_bounds(figures, list(clusters.values())) if clusters else None,
            "groups": {name: mean_bounds(figures, [some]) for name, some in groups.items()},
        },
    }


def _means_of(
    figures: Mapping[str, Mapping[str, Any]], sets: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    return {name: fmean(figures[task]["value"] for task in some) for name, some in sets.items()}


def mean_bounds(
    figures: Mapping[str, Mapping[str, Any]], sets: Sequence[Sequence[str]]
) -> tuple[float, float]:
    """Return the 95 % interval of the mean over sets of tasks, each the mean over its tasks.

    Errors of different tasks are independent, as their rows are, so their squares add up: the distance
    from the mean to an end is the root of the summed squares of the tasks' distances from value to that
    end, each times the task's weight (MOVER, Zou and Donner 2008). For one task it is its own interval.
    """
    weights = mean_weights(sets)
    mean = sum(weight * figures[task]["value"] for task, weight in weights.items())
    below, above = (
        math.hypot(*(w * (figures[t][end] - figures[t]["value"]) for t, w in weights.items()))
        for end in ("low", "high")
    )
    return mean - below, mean + above

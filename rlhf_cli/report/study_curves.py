"""Curves of instruction tuning over runs: against clusters, templates and parameters; and their means."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, linear_regression, stdev
from typing import Any

from rlhf_cli.core.means import mean_of_known, mean_weights, members, student_quantile
from rlhf_cli.report.study_runs import BASE, TRAINED, Figure, StudyRun

MODELS = {False: "base", True: "SFT"}  # by whether they are tuned
TEMPLATES = "sft: tasks.templates"
OF_TASKS = ("sft: tasks.cot", "sft: tasks.shots_as")  # settings of some tasks alone
OF_MODELS = ("sft: sft.optim.lr",)  # settings that the presets of models choose
Estimate = tuple[float, float, float]


def estimate_of(figure: Figure) -> Estimate:
    return figure["value"], figure["low"], figure["high"]


def by_seed_of(found: Iterable[tuple[int, Estimate]]) -> dict[int, Estimate]:
    """Return the mean estimate of each seed, of runs with the same one."""
    groups: dict[int, list[Estimate]] = {}
    for seed, estimate in found:
        groups.setdefault(seed, []).append(estimate)
    return {
        seed: (fmean(e[0] for e in some), fmean(e[1] for e in some), fmean(e[2] for e in some))
        for seed, some in groups.items()
    }


def summary(by_seed: Mapping[int, Estimate]) -> dict[str, Any]:
    """Return the mean over seeds with Student's 95 % interval; of one seed its own."""
    values = [value for value, _, _ in by_seed.values()]
    value, low, high = next(iter(by_seed.values()))
    if (num := len(values)) > 1:
        value = fmean(values)
        half = student_quantile(0.95, num - 1) * stdev(values) / math.sqrt(num)
        low, high = value - half, value + half
    return {"value": value, "low": low, "high": high, "runs": num}


def macro(figures: Mapping[str, Figure], clusters: Mapping[str, Sequence[str]]) -> Estimate:
    """Return the mean over clusters of the tasks' values, and its interval over rows.

    The rows of different tasks are independent: half the width is the root of sum (weight x half)^2.
    """
    weights = mean_weights(list(members(figures, clusters).values()))
    value = sum(weights[task] * found["value"] for task, found in figures.items())
    halves = [weights[t] * (found["high"] - found["low"]) / 2 for t, found in figures.items()]
    half = math.hypot(*halves)
    return value, value - half, value + half


def _unseen(run: StudyRun, *, tuned: bool) -> dict[str, Figure]:
    """Return the zero-shot figures of tasks whose clusters were not trained on."""
    figures = run.figures.get((MODELS[tuned], 0), {})
    return {task: figures[task] for task in run.unseen if task in figures}


def _widest(
    runs: Sequence[StudyRun], varied: Sequence[str], value_of: Mapping[int, Any]
) -> list[StudyRun]:
    """Return the runs that differ in the seed and in `varied` alone and take the most values of it.

    value_of: by the place of a run in `runs`. They evaluate the same unseen tasks; none where fewer than
    two values are taken.
    """
    families: dict[tuple[str, ...], list[int]] = {}
    for place, run in enumerate(runs):
        tasks = sorted(_unseen(run, tuned=True))
        if tasks and value_of[place] is not None:
            key = (*tasks, run.identity(tasks, *varied))
            families.setdefault(key, []).append(place)
    best = max(families.values(), key=lambda some: len({value_of[i] for i in some}), default=[])
    return [runs[i] for i in best] if len({value_of[i] for i in best}) > 1 else []


def _points(
    runs: Sequence[StudyRun], x_of: Sequence[Any], *, tuned: bool
) -> dict[Any, dict[str, Any]]:
    """Return {x: the mean over clusters of the unseen tasks}, in the order of x."""
    found: dict[Any, list[tuple[int, Estimate]]] = {}
    for run, x in zip(runs, x_of, strict=True):
        estimate = macro(_unseen(run, tuned=tuned), run.clusters)
        found.setdefault(x, []).append((run.seed, estimate))
    return {x: summary(by_seed_of(found[x])) for x in sorted(found)}


def clusters_curve(runs: Sequence[StudyRun]) -> list[dict[str, Any]]:
    """Return accuracy against the number of clusters trained on; 0 is the base model."""
    numbers = dict(enumerate(len(run.trained_clusters) for run in runs))
    some = _widest(runs, (TRAINED, *OF_TASKS), numbers)
    base = _points(some, [0] * len(some), tuned=False)
    tuned = _points(some, [len(run.trained_clusters) for run in some], tuned=True)
    return [{"clusters": x} | point for x, point in (base | tuned).items()]


def templates_curve(runs: Sequence[StudyRun]) -> list[dict[str, Any]]:
    """Return accuracy against tasks.templates; no template of an unseen task was trained on."""
    some = _widest(runs, (TEMPLATES,), {i: r.settings.get(TEMPLATES) for i, r in enumerate(runs)})
    points = _points(some, [run.settings[TEMPLATES] for run in some], tuned=True)
    return [{"templates": x} | point for x, point in points.items()]


def scale_of(runs: Sequence[StudyRun]) -> dict[str, Any]:
    """Return accuracy and loss of base and tuned models against parameters, and the slopes of the loss.

    A slope is that of the least-squares line of log loss over log parameters.
    """
    some = _widest(runs, (BASE, *OF_MODELS), {i: r.parameters for i, r in enumerate(runs)})
    points = []
    for tuned in MODELS:
        models = [(run.parameters, run.model) for run in some]
        for (parameters, model), point in _points(some, models, tuned=tuned).items():
            losses = [_loss(run, tuned=tuned) for run in some if run.parameters == parameters]
            points.append(
                {"model": model, "parameters": parameters, "tuned": tuned}
                | {"accuracy": point.pop("value"), **point}
                | {"loss": mean_of_known(losses)}
            )
    slopes = {("base", "tuned")[tuned]: slope(points, tuned=tuned) for tuned in MODELS}
    known = {name: found for name, found in slopes.items() if found is not None}
    return {"points": points, "slopes": known} if points else {}


def _loss(run: StudyRun, *, tuned: bool) -> float | None:
    """Return the mean over clusters of the loss of the unseen tasks; None where one has none."""
    figures = _unseen(run, tuned=tuned)
    if any(found.get("loss") is None for found in figures.values()):
        return None
    weights = mean_weights(list(members(figures, run.clusters).values()))
    return sum(weights[task] * found["loss"] for task, found in figures.items())


def slope(points: Sequence[Mapping[str, Any]], *, tuned: bool) -> float | None:
    """Return the least-squares slope of log loss over log parameters; None for fewer than two sizes."""
    some = [p for p in points if p["tuned"] is tuned and p["loss"]]
    x, y = ([math.log(point[key]) for point in some] for key in ("parameters", "loss"))
    return linear_regression(x, y).slope if len(set(x)) > 1 else None

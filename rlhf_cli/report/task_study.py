"""Figures of instruction tuning over several runs, as FLAN reports them (Wei et al. 2021, section 4).

Three paradigms: prompting is the base model of any run; finetuned is an SFT model trained on that task
alone; instruction_tuned is one trained on tasks of other clusters. Two curves: accuracy on tasks of
unseen clusters against the clusters trained on, and against the templates per task. Scale: accuracy and
loss on unseen clusters against the number of parameters.

All are of direct answers; curves and scale are zero-shot. Runs that differ in the seed alone are one
figure: its mean, and from two seeds on Student's interval over seeds, of one seed that over rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlhf_cli.core.means import mean_of_known, members
from rlhf_cli.report.study_curves import (
    MODELS,
    TEMPLATES,
    Estimate,
    by_seed_of,
    clusters_curve,
    estimate_of,
    macro,
    scale_of,
    summary,
    templates_curve,
)
from rlhf_cli.report.study_runs import TRAINED, Figure, StudyRun, read_study_run

PROMPTING, FINETUNED, INSTRUCTION_TUNED = "prompting", "finetuned", "instruction_tuned"
PARADIGMS = (PROMPTING, FINETUNED, INSTRUCTION_TUNED)
Chosen = dict[
    str, list["Measured"]
]  # {task: its figures of one paradigm, model and number of shots}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One task's figure of one run. identity: all it depends on but the seed.

    breadth: how many clusters and templates were trained on.
    """

    seed: int
    identity: str
    breadth: tuple[int, int]
    figure: Figure


def task_study(runs: Sequence[Path]) -> dict[str, Any]:
    """Return the paradigms, their means, the curves and the scale of these runs, as JSON values.

    Parts that the runs do not hold are absent.
    """
    found = [run for path in runs if (run := read_study_run(path)) is not None]
    bars = _chosen(found)
    parts = {
        "paradigms": _paradigms(bars, found),
        "means": _means(bars, found),
        "clusters_curve": clusters_curve(found),
        "templates_curve": templates_curve(found),
        "scale": scale_of(found),
    }
    return {name: part for name, part in parts.items() if part}


def _paradigm(run: StudyRun, task: str) -> str | None:
    """Return how a run's SFT model came to this task; None where it saw others of its clusters too."""
    if run.trained == {task} and len(run.sources[TRAINED]) == 1:
        return FINETUNED
    return INSTRUCTION_TUNED if task in run.unseen else None


def _chosen(runs: Sequence[StudyRun]) -> dict[tuple[str, str, int], Chosen]:
    """Return {(paradigm, model, shots): {task: figures of runs that differ in the seed alone}}.

    Where there are several such groups, the one trained on the most clusters and templates counts, of
    these the one with the most runs, then the first.
    """
    groups: dict[tuple[str, str, int], dict[str, dict[str, list[Measured]]]] = {}
    for run in runs:
        for (model, shots), figures in run.figures.items():
            for task, figure in figures.items():
                paradigm = PROMPTING if model == MODELS[False] else _paradigm(run, task)
                if paradigm is not None and model in MODELS.values():
                    one = _measured(run, task, figure, paradigm)
                    by_task = groups.setdefault((paradigm, run.model, shots), {})
                    by_task.setdefault(task, {}).setdefault(one.identity, []).append(one)
    order = sorted(groups, key=lambda key: (PARADIGMS.index(key[0]), *key[1:]))
    return {
        key: {task: max(some.values(), key=_priority) for task, some in groups[key].items()}
        for key in order
    }


def _measured(run: StudyRun, task: str, figure: Figure, paradigm: str) -> Measured:
    if paradigm == PROMPTING:
        of_sft = [key for key in run.settings if key.startswith("sft: ")]
        varied, breadth = (TRAINED, *of_sft), (0, 0)
    else:
        varied, breadth = (), (len(run.trained_clusters), run.settings.get(TEMPLATES, 0))
    identity = run.identity([task], *varied)
    return Measured(seed=run.seed, identity=identity, breadth=breadth, figure=figure)


def _priority(group: Sequence[Measured]) -> tuple[tuple[int, int], int]:
    return group[0].breadth, len(group)


def _paradigms(
    bars: Mapping[tuple[str, str, int], Chosen], runs: Sequence[StudyRun]
) -> list[dict[str, Any]]:
    """Return the bars of each task, in the order in which the runs name the tasks."""
    found = []
    for task in dict.fromkeys(task for run in runs for task in run.asked):
        clusters = next(run.clusters[task] for run in runs if task in run.clusters)
        of_task = {key: some[task] for key, some in bars.items() if task in some}
        figures = [one.figure for some in of_task.values() for one in some]
        chance = next((f["chance"] for f in figures if f.get("chance") is not None), None)
        shown = [
            _bar(
                key,
                by_seed_of((one.seed, estimate_of(one.figure)) for one in some),
                [one.figure["template_std"] for one in some],
            )
            for key, some in of_task.items()
        ]
        found.append(
            {"task": task, "cluster": ", ".join(clusters), "chance": chance, "bars": shown}
        )
    return found


def _means(
    bars: Mapping[tuple[str, str, int], Chosen], runs: Sequence[StudyRun]
) -> list[dict[str, Any]]:
    """Return the bars as means over clusters, each of the tasks that the bars of its model share.

    clusters: {cluster: mean over its tasks}. A bar counts the seeds in which each task has a figure.
    """
    clusters = {task: names for run in runs for task, names in run.clusters.items()}
    found = []
    for key, some in bars.items():
        others = [other for (_, model, _), other in bars.items() if model == key[1]]
        tasks = _common(others)
        seeds = [{one.seed: one.figure for one in some.get(task, ())} for task in tasks]
        common = [seed for seed in seeds[0] if all(seed in one for one in seeds)]
        if not common:
            continue
        figures = {seed: dict(zip(tasks, (f[seed] for f in seeds), strict=True)) for seed in common}
        by_seed = {seed: macro(found, clusters) for seed, found in figures.items()}
        spreads = [f["template_std"] for one in figures.values() for f in one.values()]
        of_clusters = {
            name: fmean(one[task]["value"] for one in figures.values() for task in listed)
            for name, listed in members(tasks, clusters).items()
        }
        found.append(_bar(key, by_seed, spreads) | {"clusters": of_clusters})
    return found


def _common(bars: Sequence[Chosen]) -> list[str]:
    """Return the tasks that the bars share; a bar that shares none with larger ones does not count."""
    tasks: list[str] = []
    for some in sorted(bars, key=len, reverse=True):
        tasks = [task for task in tasks if task in some] or tasks or list(some)
    return tasks


def _bar(
    key: tuple[str, str, int], by_seed: Mapping[int, Estimate], spreads: Sequence[float | None]
) -> dict[str, Any]:
    paradigm, model, shots = key
    about = {"paradigm": paradigm, "model": model, "shots": shots}
    return about | summary(by_seed) | {"template_std": mean_of_known(spreads)}

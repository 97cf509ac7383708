"""A run as the study of instruction tuning reads it: what was trained on, what was asked, the figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import CONFIG, MANIFEST
from rlhf_cli.artifacts.manifest import ArtifactError, StageManifest, canonical_hash, read_manifest
from rlhf_cli.report.task_table import read_task_figures

TRAINED, BASE, ASKED = "trained on", "base model", "asked"  # keys of a run's identity
PREFIX = "tasks:train "  # of the sources of a mixture in a manifest
NOT_COMPARED = ("seed", "data.date")
Figure = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRun:
    """One evaluated run. model: the name of its base model. trained: the tasks of its SFT mixture.

    settings: what decides its figures, beside the seed, of SFT and of the evaluation. sources: of SFT
    and of the tasks that were asked, by content. clusters: of every task in its task files. exclusive:
    groups of clusters. figures: {(base or SFT, shots): {task: figure}}, of direct answers.
    """

    model: str
    base: str
    parameters: int | None
    seed: int
    trained: frozenset[str]
    settings: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, str]]
    clusters: Mapping[str, tuple[str, ...]]
    exclusive: Sequence[Sequence[str]]
    figures: Mapping[tuple[str, int], Mapping[str, Figure]]

    @property
    def trained_clusters(self) -> set[str]:
        return {cluster for task in self.trained for cluster in self.clusters.get(task, ())}

    @property
    def unseen(self) -> list[str]:
        """Return the evaluated tasks of no cluster that was trained on, or is exclusive with one."""
        if not self.trained or not self.trained <= self.clusters.keys():
            return []
        seen = self.trained_clusters
        seen |= {c for group in self.exclusive if seen & {*group} for c in group}
        return sorted(task for task in self.asked if not seen & {*self.clusters[task]})

    @property
    def asked(self) -> list[str]:
        return list(dict.fromkeys(task for found in self.figures.values() for task in found))

    def identity(self, tasks: Sequence[str], *varied: str) -> str:
        """Return the hash of all that figures of these tasks depend on, but the seed and what varies."""
        asked = {task: self.sources[ASKED].get(task) for task in tasks}
        every = {BASE: self.base, TRAINED: self.sources[TRAINED], ASKED: asked, **self.settings}
        return canonical_hash({key: value for key, value in every.items() if key not in varied})


def read_study_run(run: Path) -> StudyRun | None:
    """Return what a run's evaluation of tasks holds; None where it has none."""
    folder = run / "evaluate"
    if not (folder / MANIFEST).is_file() or (content := read_task_figures(folder)) is None:
        return None
    manifest = read_manifest(folder)
    sft = _sft_of(run, manifest)
    sources = {} if sft is None else sft.data.get("data.demonstrations", {})
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return StudyRun(
        model=manifest.origins.get("base", "").rstrip("/").rpartition("/")[2],
        base=manifest.parents.get("base", ""),
        parameters=content.get("parameters", {}).get("base"),
        seed=manifest.seed,
        trained=frozenset(s.removeprefix(PREFIX) for s in sources if s.startswith(PREFIX)),
        settings=_settings("sft", sft) | _settings("evaluate", manifest),
        sources={TRAINED: sources, ASKED: manifest.data.get("tasks", {})},
        clusters={task: tuple(names) for task, names in _clusters(content).items()},
        exclusive=config.get("tasks", {}).get("exclusive", []),
        figures={
            (row["model"], int(row["shots"])): row["tasks"]
            for row in content["rows"]
            if row["asked"] == "direct"
        },
    )


def _clusters(content: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    evaluated = {task: found["clusters"] for task, found in content["tasks"].items()}
    return evaluated | content.get("clusters", {})


def _sft_of(run: Path, evaluation: StageManifest) -> StageManifest | None:
    """Return the manifest of the SFT model that was evaluated; None where it is not there any more."""
    for folder in (run / "sft", Path(evaluation.origins.get("sft", ""))):
        try:
            manifest = read_manifest(folder)
        except ArtifactError:
            continue
        if manifest.digest == evaluation.parents.get("sft"):
            return manifest
    return None


def _settings(stage: str, manifest: StageManifest | None) -> dict[str, Any]:
    config = {} if manifest is None else manifest.config
    return {f"{stage}: {key}": value for key, value in config.items() if key not in NOT_COMPARED}

"""What the stages of a run left for a person to read, beside their manifests: JSON, and no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import METRICS, WATCH
from rlhf_cli.artifacts.manifest import ArtifactError, load_json
from rlhf_cli.artifacts.results import Results, read_results
from rlhf_cli.report.run_state import RunState, metric_lines

ANSWERS, CURVE, REWARD_REPORT = "answers.jsonl", "curve.json", "report.json"
BEST_OF_N = "best_of_n"
Lines = Sequence[Mapping[str, Any]]


@dataclass(slots=True, kw_only=True)
class RunFiles:
    """A run with the lines of its stages. metrics, watch: by stage. best_of_n: points of its curve.

    problems: what is wrong with the run, and what could not be read.
    """

    state: RunState
    metrics: dict[str, Lines] = field(default_factory=dict)
    watch: dict[str, Lines] = field(default_factory=dict)
    reward_report: Mapping[str, Any] = field(default_factory=dict)
    best_of_n: Lines = ()
    results: Results = field(default_factory=Results)
    answers: Lines = ()
    problems: list[str] = field(default_factory=list)

    @property
    def seed(self) -> int:
        return next((one.seed for one in self.state.manifests.values()), 0)


def read_files(state: RunState) -> RunFiles:
    """Return what the finished stages of a run left; results of another version are a problem, no error."""
    run, found = state.folder, RunFiles(state=state, problems=list(state.problems))
    for stage in state.manifests:
        found.metrics[stage] = list(metric_lines(run / stage / METRICS))
        found.watch[stage] = list(metric_lines(run / stage / WATCH))
    if "rm" in state.manifests:
        found.reward_report = _json(run / "rm" / REWARD_REPORT, found.problems) or {}
    if "evaluate" in state.manifests:
        found.answers = list(metric_lines(run / "evaluate" / ANSWERS))
        try:
            found.results = read_results(run / "evaluate") or found.results
        except ArtifactError as refusal:
            found.problems.append(str(refusal))
    found.best_of_n = found.results.curves.get(BEST_OF_N, ())
    if BEST_OF_N in state.manifests and not found.best_of_n:
        found.best_of_n = _json(run / BEST_OF_N / CURVE, found.problems) or ()
    return found


def _json(path: Path, problems: list[str]) -> Any:
    """Return the content of a file, None without one; what cannot be read is added to the problems."""
    if not path.is_file():
        return None
    try:
        return load_json(path)
    except ValueError:
        problems.append(f"{path} cannot be read: run its stage again")
        return None

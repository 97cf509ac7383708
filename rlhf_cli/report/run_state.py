"""The state of a run from its folder: stages, problems, and the progress of the running one."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import JOB, LM_EVAL, METRICS, work_folder
from rlhf_cli.artifacts.lm_eval import ModelScores, known_weights, read_scores
from rlhf_cli.artifacts.lock import Holder, holder
from rlhf_cli.artifacts.manifest import ArtifactError, StageManifest
from rlhf_cli.artifacts.store import verified
from rlhf_cli.report.table import read_table
from rlhf_cli.report.task_table import read_task_figures
from rlhf_cli.telemetry.progress import duration

Headlines = Mapping[str, tuple[str, ...]]  # stage -> its most telling metrics, in pipeline order


@dataclass(slots=True, kw_only=True, frozen=True)
class AtWork:
    """The process that holds a run, and how far its stage is. seconds: at work on this stage."""

    holder: Holder | str
    stage: str = ""
    step: int = 0
    total_steps: int | None = None
    seconds: float = 0.0

    def progress(self) -> str:
        """Return a line such as "ppo, step 12 of 84 after 1:05"."""
        if not self.stage:
            return "before its next stage"
        if not self.step:
            return f"{self.stage}, before its first step"
        of = f" of {self.total_steps}" if self.total_steps else ""
        return f"{self.stage}, step {self.step}{of} after {duration(self.seconds)}"


@dataclass(slots=True, kw_only=True)
class RunState:
    """A run as it is now. manifests: its verified stages. problems: one line each.

    harness: what the lm-evaluation-harness measured, by model.
    """

    folder: Path
    manifests: dict[str, StageManifest]
    problems: list[str]
    at_work: AtWork | None
    table: dict[str, Any] | None
    tasks: dict[str, Any] | None
    harness: dict[str, ModelScores]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def as_json(self) -> dict[str, Any]:
        """Return every stage's manifest without the list of its files, for programs."""
        stages = {name: asdict(manifest) for name, manifest in self.manifests.items()}
        for stage in stages.values():
            del stage["files"]
        return {
            "name": self.name,
            "folder": str(self.folder),
            "stages": stages,
            "table": self.table,
            "tasks": self.tasks,
            "lm_eval": {name: asdict(one) for name, one in self.harness.items()},
            "at_work": None if self.at_work is None else asdict(self.at_work),
            "problems": self.problems,
        }


def read_run(
    run: Path, stages: tuple[str, ...], *, opened: Callable[[Path], StageManifest] = verified
) -> RunState:
    """Return the state of a run. opened: returns a stage's manifest, by default of its verified files."""
    manifests, problems = read_stages(run, stages, opened)
    at_work = read_at_work(run, stages)
    problems += stale_parents(manifests) + unfinished(run, stages, at_work)
    harness, unknown = _read_harness(run, manifests)
    evaluated = "evaluate" in manifests
    return RunState(
        folder=run,
        manifests=manifests,
        problems=problems + unknown,
        at_work=at_work,
        table=read_table(run / "evaluate") if evaluated else None,
        tasks=read_task_figures(run / "evaluate") if evaluated else None,
        harness=harness,
    )


def read_stages(
    run: Path, stages: tuple[str, ...], opened: Callable[[Path], StageManifest]
) -> tuple[dict[str, StageManifest], list[str]]:
    """Return the stages that `opened` accepts, and why it refuses the others."""
    found, problems = {}, []
    for stage in stages:
        if (run / stage).exists():
            try:
                found[stage] = opened(run / stage)
            except ArtifactError as refusal:
                problems.append(str(refusal))
    return found, problems


def _read_harness(
    run: Path, manifests: dict[str, StageManifest]
) -> tuple[dict[str, ModelScores], list[str]]:
    """Return what the lm-evaluation-harness measured of the models as they are now.

    Figures of other weights, and what cannot be read, are problems.
    """
    known, problems = {}, []
    for path in sorted((run / LM_EVAL).glob("*.json")):
        try:
            found = read_scores(path)
        except ArtifactError as refusal:
            problems.append(str(refusal))
            continue
        if found is None:
            continue
        if known_weights(manifests, found.model) == found.weights:
            known[found.model] = found
            continue
        again = f"rlhf lm-eval {run / found.model} {' '.join(found.tasks)}"
        problems.append(
            f"{path} is of other weights than {found.model} has now, and is not shown: `{again}` "
            "measures again"
        )
    return known, problems


def read_at_work(run: Path, stages: tuple[str, ...]) -> AtWork | None:
    """Return what a running process is doing; None when no process holds the run."""
    by = holder(run)
    if by is None:
        return None
    begun = [(path.stat().st_mtime, stage) for stage in stages for path in _jobs(run, stage)]
    if not begun:
        return AtWork(holder=by)
    stage = max(begun)[1]
    lines = list(metric_lines(work_folder(run, stage) / METRICS))
    return AtWork(
        holder=by,
        stage=stage,
        step=max((line.get("step", 0) for line in lines), default=0),
        total_steps=next((n for line in lines if (n := line.get("total_steps"))), None),
        seconds=max((line.get("time", 0.0) for line in lines), default=0.0),
    )


def _jobs(run: Path, stage: str) -> Iterator[Path]:
    """Return the file that the workers of an attempt were started with, newest where they work now."""
    path = work_folder(run, stage) / JOB
    if path.is_file():
        yield path


def metric_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of a file like metrics.jsonl, up to the one that a stage is just writing."""
    for text in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        try:
            yield json.loads(text)
        except ValueError:
            return


def stale_parents(manifests: dict[str, StageManifest]) -> list[str]:
    """Return stages made from another version of a stage than the one beside them."""
    problems = []
    for stage, manifest in manifests.items():
        for role, digest in manifest.parents.items():
            beside = manifests.get(role)
            is_own = Path(manifest.origins.get(role, "")).parent.name not in ("", ".")
            if beside is not None and is_own and digest != beside.digest:
                problems.append(
                    f"{stage} was made with another {role} than the one here; run it again"
                )
    return problems


def unfinished(run: Path, stages: tuple[str, ...], at_work: AtWork | None) -> list[str]:
    """Return work folders that were left by a stage that failed or was stopped."""
    left = []
    for stage in stages:
        work = work_folder(run, stage)
        if work.exists() and not (at_work and at_work.stage == stage):
            left.append(f"{stage} did not finish{_reason(work)}; its files are in {work}")
    return left


def _reason(work: Path) -> str:
    try:
        return f": {json.loads((work / 'failure.json').read_text())['reason']}"
    except (OSError, ValueError, KeyError, TypeError):  # not there, or torn by a kill
        return ""

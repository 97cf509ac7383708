"""runs/<name>/lm_eval/<model>.json: what the lm-evaluation-harness measured of a model of a run.

The file stands beside the stages, which stay as they were published. It names the weights that were
measured by their hash, so that figures of earlier weights are recognised.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_cli.artifacts.layout import BEST, MODEL
from rlhf_cli.artifacts.manifest import (
    ArtifactError,
    StageManifest,
    canonical_hash,
    load_version,
    read_errors,
)
from rlhf_cli.artifacts.store import FREE, write_errors, write_text

VERSION = 1
BASE = "base"  # the model that nothing of the run has trained


@dataclass(slots=True, frozen=True, kw_only=True)
class TaskScore:
    """One metric of one task. count: questions; cut: those whose input was longer than the model reads.

    stderr: the standard error of the value. limit: the first questions of the task alone. group: the
    group that the task is a part of. task_version: that of the task's definition. None: not known.
    """

    task: str
    metric: str
    filter: str
    value: float | None
    stderr: float | None
    count: int | None
    cut: int
    shots: int | None
    limit: int | None
    chat: bool
    group: str | None
    task_version: str | None
    higher_is_better: bool | None
    lm_eval: str
    transformers: str
    dtype: str


@dataclass(slots=True, kw_only=True)
class ModelScores:
    """All kept figures of a model. model: base, a stage, or <stage>/best. weights: their hash."""

    model: str
    weights: str
    scores: list[TaskScore]

    @property
    def tasks(self) -> list[str]:
        """Return the names of the tasks that were asked for, without the parts of groups."""
        return list(dict.fromkeys(one.task for one in self.scores if one.group is None))


def weights_hash(manifest: StageManifest, folder: str = MODEL) -> str:
    """Return the hash of a model folder of a stage, MODEL or BEST: weights, tokenizer, chat template."""
    files = {
        name: one.sha256 for name, one in manifest.files.items() if name.split("/")[0] == folder
    }
    return canonical_hash(files)


def known_weights(manifests: dict[str, StageManifest], model: str) -> str | None:
    """Return the hash of the weights that a model of the run has now; None where it has no such model."""
    if model == BASE:
        found = [one.parents[BASE] for one in manifests.values() if BASE in one.parents]
        return found[0] if found else None
    stage, _, folder = model.partition("/")
    if stage not in manifests:
        return None
    return weights_hash(manifests[stage], BEST if folder == BEST else MODEL)


def added(old: ModelScores | None, new: ModelScores) -> ModelScores:
    """Return the new figures with the old ones of other tasks, if they are of the same weights."""
    if old is None or old.weights != new.weights:
        return new
    measured = {one.task for one in new.scores}
    kept = [one for one in old.scores if one.task not in measured]
    return ModelScores(model=new.model, weights=new.weights, scores=[*kept, *new.scores])


def write_scores(path: Path, found: ModelScores) -> None:
    """Write the file atomically, with its folder."""
    content = {"version": VERSION, **asdict(found)}
    with write_errors(path, FREE):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_scores(path: Path) -> ModelScores | None:
    """Return the figures of a file, None where there is none; ArtifactError where it cannot be read."""
    if not path.is_file():
        return None
    with read_errors(path):
        try:
            content = load_version(path, VERSION, remedy="remove it")
            scores = [TaskScore(**one) for one in content.pop("scores")]
            return _checked(ModelScores(scores=scores, **content))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path} holds no figures of rlhf lm-eval", "remove it") from error


def _checked(found: ModelScores) -> ModelScores:
    """Return the figures; TypeError where a value or a name is of another type."""
    for one in found.scores:
        numbers = (one.value, one.stderr, one.count, one.cut, one.shots, one.limit)
        if not all(number is None or isinstance(number, int | float) for number in numbers):
            raise TypeError(numbers)
    _require_texts([found.model, found.weights])
    _require_texts([name for one in found.scores for name in (one.task, one.metric, one.filter)])
    return found


def _require_texts(values: Sequence[object]) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError(values)

"""Runs as the page reads them, made by hand: manifests, results, answers and lines, without folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.lm_eval import ModelScores, TaskScore
from rlhf_cli.artifacts.manifest import FINISHED, StageManifest
from rlhf_cli.artifacts.results import Figure, Results
from rlhf_cli.report.run_files import RunFiles
from rlhf_cli.report.run_state import RunState


def stage(name: str, **changes: Any) -> StageManifest:
    """Return the manifest of a finished stage. changes: config, metrics, parents, data, seed, .."""
    fields: dict[str, Any] = {
        "version": "0.1", "commit": "abcdef012345", "config": {}, "data": {}, "parents": {},
        "origins": {}, "tokenizer_hash": None, "template_hash": None, "seed": 1, "step": 7,
        "started": "2026-01-01 10:00:00", "finished": "2026-01-01 10:01:05", "metrics": {},
        "digest": f"{name}0123456789abcdef",
    }  # fmt: skip
    return StageManifest(stage=name, status=FINISHED, **(fields | changes))


def run_of(
    name: str = "one",
    *,
    seed: int = 1,
    stages: Mapping[str, dict[str, Any]] | None = None,
    rows: dict[str, Any] | None = None,
    figures: list[Figure] | None = None,
    verdicts: list[dict[str, Any]] | None = None,
    missing: list[str] | None = None,
    problems: list[str] | None = None,
    harness: dict[str, list[TaskScore]] | None = None,
    **lines: Any,
) -> RunFiles:
    """Return a run. stages: changes by stage. rows: of its closing table. harness: scores by model.

    lines: fields of RunFiles.
    """
    state = RunState(
        folder=Path("runs") / name,
        manifests={
            one: stage(one, **({"seed": seed} | changes))
            for one, changes in (stages or {"sft": {}}).items()
        },
        problems=[],
        at_work=None,
        table=None
        if rows is None
        else {"title": "Evaluation on 24 held-out prompts", "rows": rows, "notes": ["a note"]},
        tasks=None,
        harness={
            model: ModelScores(model=model, weights="0123", scores=scores)
            for model, scores in (harness or {}).items()
        },
    )
    results = Results(figures=figures or [], verdicts=verdicts or [], missing=missing or [])
    return RunFiles(state=state, results=results, problems=problems or [], **lines)


def figure(measure: str = "win_rate", value: float = 0.5, **names: Any) -> Figure:
    plain = {"part": "win_rates", "low": value - 0.1, "high": value + 0.1, "count": 20}
    return Figure(measure=measure, value=value, **(plain | names))


def answer(model: str = "PPO", prompt: str = "why?", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "response": f"{model} to {prompt}"} | more

"""What the evaluation writes beside its table: every answer, for a person or another judge to read."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf_cli.artifacts.store import write_text
from rlhf_cli.data.embedded import EmbeddedTask
from rlhf_cli.evaluation.metrics import EvalResult
from rlhf_cli.stages.samples import conversation_text

ANSWERS = "answers.jsonl"


def write_answers(
    place: Path,
    found: Mapping[str, EvalResult],
    task: EmbeddedTask | None,
    sets: Sequence[str | None] | None = None,
) -> None:
    """Write every answer of every candidate. sets: the name of each prompt's set, None: held-out."""
    lines = [
        json.dumps(_entry(name, result, i, task, sets[i] if sets else None))
        for name, result in found.items()
        for i in range(len(result.answers))
    ]
    write_text(place, "\n".join(lines) + "\n")


def _entry(
    name: str, result: EvalResult, i: int, task: EmbeddedTask | None, prompts: str | None
) -> dict:
    prompt, answer = result.prompts[i], result.answers[i]
    entry = {
        "model": name,
        "index": i,
        "prompt": conversation_text(prompt.messages),
        "response": answer.text,
        "finished": answer.finished,
        "tokens": len(answer.ids),
        "score": None if result.scores is None else float(result.scores[i]),
    }
    if prompts is not None:
        entry["prompts"] = prompts
    if prompt.reference is not None:
        entry["reference"] = prompt.reference
    judges = {judge: float(values[i]) for judge, values in result.judged.items()}
    known = {judge: value for judge, value in judges.items() if not math.isnan(value)}
    if known:
        entry["judges"] = known
    if task is not None and (utility := result.measures[task.UTILITY][i]) is not None:
        entry[task.UTILITY] = utility
    return entry

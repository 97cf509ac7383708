"""What tasks depend on, as hashes: a comment or another place of a task file changes nothing."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rlhf_cli.config.schema import Source
from rlhf_cli.data.sources import source_hash
from rlhf_cli.data.tasks.task import Task


def contents(tasks: Iterable[Task]) -> dict[str, str]:
    """Return {task: sha256 of its templates and settings and of the rows of its sources}."""
    return {task.name: _hash(task) for task in tasks}


def _hash(task: Task) -> str:
    train, evaluation = task.source.train, task.source.evaluation
    source = replace(
        task.source, train=_placeless(train), evaluation=evaluation and _placeless(evaluation)
    )
    texts = replace(task, source=source, file=Path(), cot_prompt=None)
    parts = [repr(texts), *map(source_hash, task.source.every)]
    if task.cot_prompt is not None:
        parts.append(task.cot_prompt.read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def _placeless(source: Source) -> Source:
    return replace(source, path="")

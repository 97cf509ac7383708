"""Runs with policies that can be loaded, tasks in files, and figures of the lm-evaluation-harness."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.fingerprint import model_hash
from rlhf_cli.artifacts.lm_eval import TaskScore
from rlhf_cli.artifacts.manifest import FINISHED, StageManifest
from rlhf_cli.artifacts.publication import publish
from rlhf_cli.models.load import ASSETS

TINY = ASSETS / "tiny_xs"


def policy(
    run: Path,
    stage: str = "sft",
    *,
    best: bool = False,
    system: str | None = None,
    note: str = "",
    origin: str = "tiny_xs",
) -> Path:
    """Make a finished stage with the smallest model of the package; return the folder of the run.

    note: written into a file of the model, so that its hash is another one. origin: where
    the base model was.
    """
    work = run / f".{stage}.work"
    for folder in ("model", "best") if best else ("model",):
        shutil.copytree(TINY, work / folder)
        (work / folder / "note.md").write_text(note + folder)
    model = {"path": "tiny_xs", "revision": None, "tokenizer": None}
    config = {"model": model, "data": {"system": system}}
    (work / "config.json").write_text(json.dumps(config))
    fields: dict[str, Any] = {
        "stage": stage, "status": FINISHED, "version": "0.1", "commit": None, "config": {}, "data": {},
        "parents": {"base": model_hash(str(TINY), None)}, "origins": {"base": origin},
        "tokenizer_hash": None, "template_hash": None, "seed": 1, "step": 7,
        "started": "2026-01-01 10:00:00", "finished": "2026-01-01 10:01:05", "metrics": {},
    }  # fmt: skip
    publish(work, run / stage, StageManifest(**fields))
    return run


def score(task: str = "mine", value: float | None = 0.5, **changes: Any) -> TaskScore:
    """Return a figure. changes: fields of TaskScore."""
    plain: dict[str, Any] = {
        "metric": "acc", "filter": "none", "stderr": 0.1, "count": 24, "cut": 0, "shots": 0,
        "limit": None, "chat": True, "group": None, "task_version": "1.0", "higher_is_better": True,
        "lm_eval": "0.4.13", "transformers": "5.0.0", "dtype": "float32",
    }  # fmt: skip
    return TaskScore(task=task, value=value, **(plain | changes))


def choices_task(folder: Path, rows: Sequence[dict], name: str = "choices", extra: str = "") -> str:
    """Write a task of multiple choice with its data; return its name. rows: q, choices, answer."""
    return _task(
        folder,
        name,
        rows,
        "output_type: multiple_choice\n"
        'doc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"\n'
        f"metric_list:\n  - metric: acc\n{extra}",
    )


def writing_task(
    folder: Path, rows: Sequence[dict], name: str = "writing", extra: str = "", most: int = 6
) -> str:
    """Write a task whose response must be equal to the target; return its name. rows: q, target."""
    return _task(
        folder,
        name,
        rows,
        "output_type: generate_until\n"
        'doc_to_target: "{{target}}"\n'
        f'generation_kwargs:\n  until: ["\\n"]\n  max_gen_toks: {most}\n'
        f"metric_list:\n  - metric: exact_match\n{extra}",
    )


def _task(folder: Path, name: str, rows: Sequence[dict], rest: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.yaml").write_text(
        f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\n"
        'test_split: test\ndoc_to_text: "Question: {{q}}\\nAnswer:"\n'
        f"{rest}metadata:\n  version: 2.0\n"
    )
    return name

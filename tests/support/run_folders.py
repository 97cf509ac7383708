"""Run folders made by hand: finished stages with valid manifests, no model in them."""

import json
from collections.abc import Mapping
from pathlib import Path

from rlhf_cli.artifacts.manifest import FINISHED, StageManifest
from rlhf_cli.artifacts.store import file_records

HEADLINES = {"sft": ("sft/loss",), "rm": ("rm/accuracy",), "ppo": (), "evaluate": ()}
STAGES = tuple(HEADLINES)


def finish(
    run: Path,
    stage: str = "sft",
    *,
    config: dict | None = None,
    metrics: dict | None = None,
    data: dict | None = None,
    table: dict | None = None,
    tasks: dict | None = None,
    seed: int = 1,
    made_of: dict | None = None,
    files: Mapping[str, str] | None = None,
    **more,
) -> Path:
    """Make a finished stage in a run folder; return the folder of the run."""
    folder = run / stage
    folder.mkdir(parents=True)
    config = {"name": run.name, "seed": seed, "sft": {"epochs": 2}, "rm": {}} | (config or {})
    (folder / "config.json").write_text(json.dumps(config))
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    if table:
        (folder / "table.json").write_text(json.dumps(table))
    if tasks:
        (folder / "tasks.json").write_text(json.dumps(tasks))
    fields = {
        "stage": stage, "status": FINISHED, "version": "0.1", "commit": "abcdef012345",
        "config": made_of or {}, "data": data or {}, "parents": {}, "origins": {},
        "tokenizer_hash": None, "template_hash": None, "seed": seed, "step": 7,
        "started": "2026-01-01 10:00:00", "finished": "2026-01-01 10:01:05",
        "metrics": metrics or {"sft/loss": 0.5},
    }  # fmt: skip
    manifest = StageManifest(**(fields | more), files=file_records(folder))
    (folder / "manifest.json").write_text(manifest.seal().to_json())
    return run

"""Task files and rows for the tests of tasks."""

import json
from pathlib import Path

from rlhf_cli.config.schema import ShotsAs, Tasks
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.data.tasks.source import Mixture

RTE = {
    "name": "rte",
    "clusters": ["nli"],
    "source": {"path": "rte.jsonl", "columns": {"premise": "p", "hypothesis": "h", "label": "y"}},
    "options": ["yes", "no"],
    "answer": "{{ options[label] }}",
    "rationale": "why",
    "templates": [
        {
            "name": "conclude",
            "input": "{{premise}}\nCan we conclude that {{hypothesis}}?\n{{options_}}",
            "target": "{{answer}}",
        },
        {"name": "true", "input": "Is {{hypothesis}} true?\n{{options_}}", "target": "{{answer}}"},
        {
            "name": "invent",
            "turned_around": True,
            "input": "Write a premise.",
            "target": "Premise: {{premise}}",
        },
    ],
}


def rows(num: int, name: str = "rte") -> list[dict]:
    return [
        {
            "p": f"{name} dog {i} runs",
            "h": f"{name} animal {i} moves",
            "y": i % 2,
            "why": f"dog {i}",
        }
        for i in range(num)
    ]


def make(folder: Path, num: int = 40, **changes) -> Path:
    """Write a task file with its rows; return the path of the task file."""
    content = {**RTE, **changes}
    name = content["name"]
    data = changes.get("rows", rows(num, name))
    content.pop("rows", None)
    if "source" not in changes:
        content["source"] = {**RTE["source"], "path": f"{name}.jsonl"}
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return path


def rendered_rows(num: int = 12) -> list[dict]:
    """Return rows as in T0's dumps: two templates, end marks, one row without a target."""
    return [
        {
            "template": name,
            "prompt": f"{name}: text {i} good or bad?\n",
            "completion": text + "<|endoftext|>",
        }
        for name in ("short", "long")
        for i in range(num)
        for text in ["" if name == "long" and i == 0 else ("good", "bad")[i % 2]]
    ]


def settings(*files: Path, **changes) -> Tasks:
    usual = {
        "files": [str(file) for file in files],
        "folder": None,
        "hold_out": [],
        "train": [],
        "exclusive": [["nli", "paraphrase"]],
        "examples": 20000,
        "cap": 30000,
        "rate": 3000,
        "templates": 10,
        "options": 1.0,
        "shots": [0],
        "shots_as": ShotsAs.text,
        "cot": 0.0,
    }
    return Tasks(**{**usual, **changes})


def mixture(*files: Path, epochs: int = 2, seed: int = 1, **changes) -> Mixture:
    return Mixture(
        settings=settings(*files, **changes),
        seed=seed,
        epochs=epochs,
        eval_fraction=0.2,
        select_fraction=0.1,
    )


def records(mixed: Mixture) -> tuple[list, DataReport]:
    """Return (records and bad rows, the report) of a mixture."""
    report = DataReport(role="demonstrations")
    return list(mixed.records(report)), report


def one_task(path: Path):
    (task,) = read_tasks([str(path)])
    return task


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

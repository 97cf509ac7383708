"""The tasks that a run evaluates: which, their questions, and the files with what models make of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.store import write_text
from rlhf_cli.data.tasks.task import Task
from rlhf_cli.evaluation.task_figures import Asked, Outcome, table_rows
from rlhf_cli.evaluation.task_questions import QuestionMaker, TaskQuestions
from rlhf_cli.evaluation.task_suite import TaskSuite
from rlhf_cli.report.task_table import write_tasks
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.task_reading import evaluated_tasks, evaluation_rows

ANSWERS = "task_answers.jsonl"


def open_suite(context: StageContext) -> TaskSuite | None:
    """Return the questions of all tasks to evaluate; None where there are none."""
    cfg = context.cfg
    tasks = evaluated_tasks(cfg)
    if not tasks:
        return None
    return TaskSuite(
        tasks=[questions_of(context, task) for task in tasks],
        settings=cfg.evaluation.tasks,
        renderer=context.renderer,
        sampling=context.sampling_params(temperature=0.0),
        batch=cfg.evaluation.batch,
        seed=cfg.seed,
        world=context.world,
        clock=context.clock,
    )


def questions_of(context: StageContext, task: Task) -> TaskQuestions:
    """Return the questions of one task."""
    cfg = context.cfg
    heartbeat(f"reading task {task.name}")
    with context.status(f"reading task {task.name}"):
        return QuestionMaker(
            rows=evaluation_rows(cfg, task),
            settings=cfg.evaluation.tasks,
            shots_as=cfg.tasks.shots_as,
            renderer=context.renderer,
            data=cfg.data,
            seed=cfg.seed,
        ).questions()


def write_suite(
    folder: Path, suite: TaskSuite, outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, float]:
    """Write tasks.json and task_answers.jsonl; return the macro mean of every row of the table.

    outcomes: of each model, in the table's order.
    """
    tasks = [questions.task for questions in suite.tasks]
    rows = table_rows(outcomes, tasks)
    content = {
        "title": title_of(suite),
        "rank": suite.settings.rank.name,
        "tasks": {questions.task.name: described(questions) for questions in suite.tasks},
        "rows": rows,
        "notes": left_out_notes(suite.tasks),
    }
    write_tasks(folder, content)
    write_answers(folder / ANSWERS, suite, outcomes)
    return {f"eval/{r['model']}/tasks/{r['shots']}-shot/{r['asked']}": r["macro"] for r in rows}


def described(questions: TaskQuestions) -> dict[str, Any]:
    """Return what is kept of a task beside its figures."""
    task = questions.task
    return {
        "file": str(task.file),
        "clusters": list(task.clusters),
        "groups": list(task.groups),
        "metric": task.metric,
        "left_out": dict(questions.left_out),
    }


def title_of(suite: TaskSuite) -> str:
    """Return what the table is about."""
    num_rows = sum(len({one.row for one in questions.direct}) for questions in suite.tasks)
    by = f", options chosen by rank={suite.settings.rank.name}"
    has_options = any(one.option_ids for questions in suite.tasks for one in questions.direct)
    return f"{num_rows} rows of {len(suite.tasks)} tasks{by if has_options else ''}"


def left_out_notes(tasks: Sequence[TaskQuestions]) -> list[str]:
    """Return a line per task of which rows, templates or exemplars were left out."""
    return [
        f"{questions.task.name}: " + ", ".join(f"{num} x {reason}" for reason, num in found)
        for questions in tasks
        if (found := [pair for pair in questions.left_out.most_common() if pair[1]])
    ]


def write_answers(place: Path, suite: TaskSuite, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
    """Write every answer with what was read in it, for a person to read."""
    asked = {
        (one.example.task, one.example.template, one.row, way): one.example
        for questions in suite.tasks
        for way, listed in ((False, questions.direct), (True, questions.chains))
        for one in listed
    }
    lines = []
    for model, judged in outcomes.items():
        for one in judged:
            example = asked[one.task, one.template, one.row, one.asked is not Asked.direct]
            entry = {
                "model": model,
                "task": one.task,
                "template": one.template,
                "shots": one.shots,
                "asked": one.asked.name,
                "origin": str(example.origin),
                "question": example.input,
                "right": example.answer,
                "response": one.response,
                "read": one.read,
                "value": one.value,
            }
            lines.append(json.dumps(entry, ensure_ascii=False))
    write_text(place, "\n".join(lines) + "\n")

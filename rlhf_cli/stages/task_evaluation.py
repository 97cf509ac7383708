"""The tasks that a run evaluates: which, their questions, and the files with what models make of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf_cli.artifacts.store import write_text
from rlhf_cli.data.tasks.task import Task
from rlhf_cli.evaluation.task_figures import Asked, Outcome
from rlhf_cli.evaluation.task_questions import QuestionMaker, TaskQuestions
from rlhf_cli.evaluation.task_suite import TaskSuite
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.task_reading import evaluated_of, evaluation_rows, every_task

TASK_ANSWERS = "task_answers.jsonl"


def open_suite(context: StageContext) -> TaskSuite | None:
    """Return the questions of all tasks to evaluate; None where there are none."""
    cfg = context.cfg
    every = every_task(cfg)
    tasks = evaluated_of(every, cfg)
    if not tasks:
        return None
    return TaskSuite(
        clusters={task.name: list(task.clusters) for task in every},
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


def write_task_answers(
    place: Path, suite: TaskSuite, outcomes: Mapping[str, Sequence[Outcome]]
) -> None:
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

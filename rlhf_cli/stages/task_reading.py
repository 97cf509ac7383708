"""The tasks that a stage reads itself, and their rows. Neither torch nor a tokenizer."""

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import TasksRead
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.data.tasks.holdout import held_out, trained_on
from rlhf_cli.data.tasks.rows import TaskRows, eval_rows, task_rows
from rlhf_cli.data.tasks.task import Task


def tasks_read(cfg: Config, which: TasksRead) -> list[Task]:
    """Return the tasks that a stage reads itself; of those trained on at least one."""
    return explained_tasks(cfg) if which is TasksRead.trained else evaluated_tasks(cfg)


def every_task(cfg: Config) -> list[Task]:
    """Return the tasks of tasks.files."""
    return read_tasks(cfg.tasks.files, folder=cfg.tasks.folder)


def evaluated_tasks(cfg: Config) -> list[Task]:
    """Return the tasks of tasks.files that are evaluated."""
    return evaluated_of(every_task(cfg), cfg)


def evaluated_of(tasks: list[Task], cfg: Config) -> list[Task]:
    """Return the tasks that are held out, and those that evaluation.tasks.also names."""
    found = [
        *held_out(tasks, cfg.tasks.hold_out),
        *held_out(tasks, cfg.evaluation.tasks.also, key="evaluation.tasks.also"),
    ]
    return [task for task in tasks if task in found]


def evaluation_rows(cfg: Config, task: Task) -> TaskRows:
    """Return the rows of a task that are evaluated, and its others; UserError where they are too few."""
    settings = cfg.evaluation.tasks
    found = eval_rows(
        task,
        seed=cfg.seed,
        eval_fraction=cfg.data.eval_fraction,
        templates=None if settings.templates == "all" else int(settings.templates),
        limit=settings.limit,
    )
    if not found.evaluation:
        raise _no_row(found, "to evaluate", "a larger data.eval_fraction")
    needed = max(settings.shots)
    num = len({row.question for row in (*found.train, *found.select)})
    if num < needed:
        raise UserError(
            f"{task.file}: evaluation.tasks.shots={settings.shots} needs {needed} rows that are not "
            f"evaluated, task {task.name} has {num}: lower it, or add rows"
        )
    return found


def require_tasks(cfg: Config, *, alone: bool) -> None:
    """Read the tasks as their evaluation does, and refuse as it would. alone: without any prompts."""
    tasks = evaluated_tasks(cfg)
    if alone and not tasks:
        raise UserError(
            "nothing to evaluate: data has neither prompts nor comparisons, and no task of tasks.files is "
            "held out; name one in tasks.hold_out or in evaluation.tasks.also"
        )
    for task in tasks:
        evaluation_rows(cfg, task)


def explained_tasks(cfg: Config) -> list[Task]:
    """Return the tasks that rationales are written for: those that may be trained on."""
    if not cfg.tasks.files:
        raise UserError("stage=rationales has no tasks: name task files or presets in tasks.files")
    return trained_on(every_task(cfg), cfg.tasks)


def explained_rows(cfg: Config, task: Task) -> TaskRows:
    """Return the rows of a task; UserError where none is on the side that is trained on."""
    found = task_rows(
        task,
        seed=cfg.seed,
        eval_fraction=cfg.data.eval_fraction,
        select_fraction=cfg.data.select_fraction,
    )
    if not found.train:
        raise _no_row(found, "to train on", "a smaller data.eval_fraction")
    return found


def _no_row(found: TaskRows, purpose: str, remedy: str) -> UserError:
    """Return the error of a task without rows for a purpose, with the first bad row."""
    task, why = found.task, f" ({found.bad[0]})" if found.bad else ""
    return UserError(
        f"{task.file}: task {task.name} has no row {purpose} of {found.num_read}{why}: give it more "
        f"rows, or {remedy}"
    )


def require_explained(cfg: Config) -> None:
    """Read the tasks as the stage rationales does, and refuse as it would."""
    for task in explained_tasks(cfg):
        explained_rows(cfg, task)

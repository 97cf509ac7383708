"""The tasks that a run evaluates, and their rows. Neither torch nor a tokenizer."""

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.data.tasks.holdout import held_out
from rlhf_cli.data.tasks.rows import TaskRows, eval_rows
from rlhf_cli.data.tasks.task import Task


def evaluated_tasks(cfg: Config) -> list[Task]:
    """Return the tasks that are held out, and those that evaluation.tasks.also names."""
    tasks = read_tasks(cfg.tasks.files, folder=cfg.tasks.folder)
    found = [
        *held_out(tasks, cfg.tasks.hold_out),
        *held_out(tasks, cfg.evaluation.tasks.also, key="evaluation.tasks.also"),
    ]
    return [task for task in tasks if task in found]


def evaluation_rows(cfg: Config, task: Task) -> TaskRows:
    """Return the rows of a task that are evaluated, and its others; UserError where they are too few."""
    settings = cfg.evaluation.tasks
    found = eval_rows(
        task, seed=cfg.seed, eval_fraction=cfg.data.eval_fraction, limit=settings.limit
    )
    if not found.evaluation:
        why = f" ({found.bad[0]})" if found.bad else ""
        raise UserError(
            f"{task.file}: task {task.name} has no row to evaluate of {found.num_read}{why}: give it more "
            "rows, or a larger data.eval_fraction"
        )
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

"""Which tasks are trained on: not those held out, nor others because of them, nor unnamed ones.

A task is unseen only if no task of any of its clusters was trained on (FLAN, section 2.2).
"""

from collections.abc import Sequence

from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.config.schema import Tasks
from rlhf_cli.data.records import DataError
from rlhf_cli.data.tasks.task import Task

UNNAMED = "not in tasks.train"


def held_out(
    tasks: Sequence[Task], hold_out: Sequence[str], *, key: str = "tasks.hold_out"
) -> list[Task]:
    """Return the tasks that are evaluated: of a cluster in `hold_out`, named there, or by their file.

    key: where these names are configured, for messages.
    """
    named = _named(tasks, hold_out, key)
    return [task for task in tasks if task.held_out or task.name in named]


def _named(tasks: Sequence[Task], names: Sequence[str], key: str) -> set[str]:
    """Return the tasks that have one of these names, or a cluster that has it; refuse unknown names.

    cluster/task is a task alone, also where a cluster has the same name.
    """
    whole = {task.name: [f"{cluster}/{task.name}" for cluster in task.clusters] for task in tasks}
    known = {task.name for task in tasks} | {c for task in tasks for c in task.clusters}
    for name in names:
        if name not in known and not any(name in some for some in whole.values()):
            meant = nearest(name, known)
            tail = did_you_mean([meant]) if meant else f": {', '.join(sorted(known)) or 'none'}"
            raise DataError(f"{key}: no task and no cluster is named {name}{tail}")
    return {t.name for t in tasks if {t.name, *t.clusters, *whole[t.name]} & set(names)}


def left_out(tasks: Sequence[Task], settings: Tasks) -> dict[str, str]:
    """Return {task that is not trained on: because of what}, the held-out ones among them."""
    evaluated = held_out(tasks, settings.hold_out)
    allowed = _named(tasks, settings.train or [task.name for task in tasks], "tasks.train")
    because = {task.name: "held out" for task in evaluated}
    clusters = {cluster: task.name for task in evaluated for cluster in task.clusters}
    for task in tasks:
        if task.name not in because and (why := _reason(task, clusters, settings.exclusive)):
            because[task.name] = why
        elif task.name not in because and task.name not in allowed:
            because[task.name] = UNNAMED
    return because


def _reason(task: Task, clusters: dict[str, str], exclusive: Sequence[Sequence[str]]) -> str | None:
    """Return why a task leaves with those held out. clusters: {cluster: a held-out task of it}."""
    for cluster in task.clusters:
        if cluster in clusters:
            return f"of cluster {cluster}, as {clusters[cluster]}, which is held out"
        for group in (group for group in exclusive if cluster in group):
            for other in (other for other in group if other in clusters):
                return f"of cluster {cluster}, exclusive with {other}, which is held out"
    return None


def trained_on(tasks: Sequence[Task], settings: Tasks) -> list[Task]:
    """Return the tasks of the mixture; DataError where none is left."""
    if not tasks:
        raise DataError("tasks:train has no tasks: name task files or presets in tasks.files")
    because = left_out(tasks, settings)
    found = [task for task in tasks if task.name not in because]
    if not found:
        name, why = next((name, why) for name, why in because.items() if why != UNNAMED)
        keys = "tasks.train and tasks.hold_out leave" if settings.train else "tasks.hold_out leaves"
        more = f", and {len(because) - 1} more" if len(because) > 1 else ""
        raise DataError(
            f"{keys} none of {len(tasks)} tasks to train on ({name}: {why}{more}); "
            "hold out less, or add tasks of other clusters"
        )
    return found

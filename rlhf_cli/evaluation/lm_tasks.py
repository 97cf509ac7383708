"""Tasks of the lm-evaluation-harness by their names, with their data; what cannot be had is refused.

lm_eval is an optional package, and slow to import: it is imported when it is needed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.hub import goes_offline
from rlhf_cli.config.keys import did_you_mean, nearest

PATTERN = "*?["  # characters of a pattern of names
LOGGERS = ("lm_eval", "datasets")
Tasks = dict[str, dict[str, Any]]  # tasks and groups by name, as lm_eval.evaluate takes them


@contextmanager
def few_messages() -> Iterator[None]:
    """Let the libraries report errors alone, and no progress of reading data."""
    import logging

    import datasets

    datasets.disable_progress_bars()
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def load_tasks(names: Sequence[str], folder: Path | None) -> Tasks:
    """Return the tasks and groups of the harness with these names, their data read.

    folder: with the user's own definitions, which come before those of the harness. A name may be a
    pattern such as mmlu_*. UserError for an unknown name, and for what cannot be read or run here.
    """
    goes_offline()
    manager = _manager(names, folder)
    known = manager.all_tasks
    found: Tasks = {"tasks": {}, "groups": {}}
    for name in _expanded(names, known, manager):
        loaded = _loaded(manager, name)
        for task, one in loaded["tasks"].items():
            if task in found["tasks"]:
                raise UserError(
                    f"the task {task} is asked for twice: alone or in a group, and in {name}"
                )
            _require_text(task, one)
        found["tasks"] |= loaded["tasks"]
        found["groups"] |= loaded.get("groups") or {}
    return found


def _manager(names: Sequence[str], folder: Path | None) -> Any:
    """Return the index of the tasks: of the folder alone where it has them all, which is much faster."""
    from lm_eval.tasks import TaskManager

    if folder is not None:
        _require_yaml(folder)
        own = TaskManager(include_path=str(folder), include_defaults=False)
        if _has_all(own, names):
            return own
    return TaskManager(include_path=None if folder is None else str(folder))


def _has_all(manager: Any, names: Sequence[str]) -> bool:
    """Return whether an index has these names, and all parts of its groups."""
    groups = [manager.task_index[name].cfg or {} for name in manager.all_groups]
    parts = [
        part.get("task") if isinstance(part, dict) else part
        for group in groups
        for part in group.get("task") or []
    ]
    known = set(manager.all_tasks)
    return all(isinstance(one, str) and one in known for one in [*names, *parts])


def _require_yaml(folder: Path) -> None:
    """Refuse a file of the folder that is no YAML: the harness would leave it out without a word."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(folder.glob("**/*.yaml")):
        try:
            load_yaml(path, resolve_func=False)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} is no definition of a task: {reason}") from error


def _expanded(names: Sequence[str], known: Sequence[str], manager: Any) -> list[str]:
    """Return the names, patterns replaced by the tasks they match; UserError for those unknown."""
    found: dict[str, None] = {}
    for name in names:
        matched = manager.match_tasks([name]) if set(name) & set(PATTERN) else [name]
        if not matched or (matched == [name] and name not in known):
            meant = nearest(name, known)
            lists = ": `lm_eval ls tasks` lists them, --tasks-dir FOLDER adds your own"
            raise UserError(f"there is no task {name!r}{did_you_mean([meant]) if meant else lists}")
        found |= dict.fromkeys(matched)
    return list(found)


def _loaded(manager: Any, name: str) -> Any:
    try:
        return manager.load([name])
    except ModuleNotFoundError as error:
        raise UserError(
            f"the task {name} needs the package {error.name}: pip install {error.name}"
        ) from error
    except ConnectionError as error:
        raise UserError(
            f"the data of the task {name} is not in the cache, and the hub cannot be reached: run the "
            "same command where there is a connection, then copy that machine's HF_HOME "
            f"({_reason(error)})"
        ) from error
    except Exception as error:
        raise UserError(f"the task {name} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _require_text(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(
            f"the task {name} runs code that the model writes, which is not done here: lm_eval itself "
            "does it with --confirm_run_unsafe_code"
        )
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"the task {name} has pictures or sounds: models here read text alone")

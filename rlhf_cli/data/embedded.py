"""Embedded tasks: packages that generate the sources named scheme:role, and measure answers to them.

Their tables are rows that task files read, named scheme:table.

The rest of the product reaches such a package through this module and names nothing of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol, cast

from rlhf_cli.data.records import DataError, Origin, Record, Row

Measure = bool | float | None  # a hit or a miss, a number, or not applicable to this prompt
TASKS = MappingProxyType({"tiny_world": "rlhf_cli.tiny_world"})
MIXTURE = "tasks"  # the scheme of the source that is made of task files (data/tasks)
MIXTURE_PATH = f"{MIXTURE}:train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A sentence of a rationale, and whether it is right."""

    text: str
    right: bool


@dataclass(slots=True, frozen=True, kw_only=True)
class Content:
    """What an answer contains, apart from its style.

    right: the right answer that it gives, in one form for all wordings and orders; None where it is wrong.
    abstains: it gives no answer and admits that. many: the prompt has several right answers.
    """

    right: str | None
    abstains: bool
    many: bool


class EmbeddedTask(Protocol):
    """What a package in TASKS offers. Its settings are the section of the configuration named so.

    UTILITY: the measure that is the true worth of an answer. LABELS: measure -> its name in tables,
    in their order. NOTE: how to read the measures, shown below the table.
    """

    UTILITY: str
    LABELS: Mapping[str, str]
    NOTE: str

    def generate(self, role: str, *, settings: Any, seed: int) -> list[Record]:
        """Return all records of a role."""
        ...

    def keys_of(self, role: str) -> tuple[str, ...]:
        """Return the settings that decide the records of a role, beside the seed."""
        ...

    def code_hash(self) -> str:
        """Return a hash of the code that decides the records."""
        ...

    def measure_answer(self, meta: dict, response: str, *, finished: bool) -> Mapping[str, Measure]:
        """Return every measure of an answer to the prompt whose record carries `meta`."""
        ...

    def content_of(self, meta: dict, response: str) -> Content:
        """Return what an answer to the prompt whose record carries `meta` contains."""
        ...

    def table_names(self) -> tuple[str, ...]:
        """Return the names of its tables, which task files read as scheme:name."""
        ...

    def table_rows(self, name: str) -> list[dict[str, Any]]:
        """Return all rows of a table; they depend on no setting and no seed."""
        ...

    def check_steps(self, rationale: str, *, question: str) -> list[Step]:
        """Return the steps of a rationale that was written to a question of its tables."""
        ...


def scheme_of(path: str) -> str | None:
    """Return the scheme of a source's path; None for a file, a folder or a hub id."""
    scheme, colon, _ = path.partition(":")
    return scheme if colon and scheme in (*TASKS, MIXTURE) else None


def task_of(path: str) -> EmbeddedTask | None:
    """Return the task that generates the source of this path; None for a source that is read."""
    scheme = scheme_of(path)
    return _package(scheme) if scheme in TASKS else None


def common_task(paths: Iterable[str]) -> EmbeddedTask | None:
    """Return the task that generates all these sources; None if there is no such task."""
    schemes = {scheme_of(path) for path in paths}
    scheme = schemes.pop() if len(schemes) == 1 else None
    return _package(scheme) if scheme in TASKS else None


def table_rows(path: str) -> Iterator[Row]:
    """Yield (origin, row) of the table that a source names; DataError where there is none."""
    scheme, _, name = path.partition(":")
    task = _package(scheme)
    if name not in (known := task.table_names()):
        listed = ", ".join(f"{scheme}:{one}" for one in known if "/" not in one)
        raise DataError(
            f"data source {path} is no table; the tables: {listed}, each also with /eval"
        )
    for number, row in enumerate(task.table_rows(name), start=1):
        yield Origin(path, number), row


def right_steps(path: str, rationale: str, *, question: str) -> list[bool] | None:
    """Return whether each step of a rationale is right; None where the source is read from files."""
    task = task_of(path)
    if task is None:
        return None
    return [step.right for step in task.check_steps(rationale, question=question)]


def measure_labels() -> dict[str, str]:
    """Return {measure: its name in tables} of all tasks."""
    return {name: label for scheme in TASKS for name, label in _package(scheme).LABELS.items()}


def utility_labels() -> dict[str, str]:
    """Return {measure that is the true worth of an answer: its name in tables} of all tasks."""
    found = [_package(scheme) for scheme in TASKS]
    return {task.UTILITY: task.LABELS[task.UTILITY] for task in found}


def _package(scheme: str) -> EmbeddedTask:
    return cast(EmbeddedTask, import_module(TASKS[scheme]))

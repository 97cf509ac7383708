"""A task: a data set that templates turn into instructions; and one row of it as text.

What a task file holds (docs/tasks.md), read and checked by files.py. No tensors, no tokenizer.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import Origin

METRICS = ("accuracy", "exact_match", "f1", "rouge_l", "bleu")
BETWEEN = "|||"  # input and target of promptsource, and its answer choices
MOST_TURNED_AROUND = 3  # templates per task (FLAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How a row becomes input and target, both jinja.

    target: None where `input` holds both, "input ||| target", as in promptsource. options: of this
    template alone, in place of the task's. turned_around: it does not ask for the answer, but for
    instance for a premise and a hypothesis; it is trained on and never evaluated.
    """

    name: str
    input: str
    target: str | None
    turned_around: bool = False
    options: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSource:
    """Where the rows are. evaluation: a source of evaluation rows; None: the held-out side.

    rendered: the rows are prompts and completions already; None: found by their columns. item: of
    rendered rows, the column that is equal in all renderings of one item.
    """

    train: Source
    evaluation: Source | None = None
    rendered: bool | None = None
    item: str | None = None

    @property
    def every(self) -> tuple[Source, ...]:
        """Return the sources: of rows to train on, and of evaluation rows where they have their own."""
        return (self.train,) if self.evaluation is None else (self.train, self.evaluation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task file. options: texts, each jinja, or one expression that gives a list; None: free answers.

    answer, rationale: jinja over the row. metric: one of METRICS. groups: of tasks, for means in
    tables. turned_around: names of templates that are, where the rows are rendered already. held_out:
    it is evaluated and never trained on. cot_prompt: a text file with exemplars of its own, for an
    evaluation with a chain of thought. file: where it was read, for messages.
    """

    name: str
    clusters: tuple[str, ...]
    source: TaskSource
    options: tuple[str, ...] | str | None
    answer: str | None
    rationale: str | None
    metric: str
    templates: tuple[Template, ...]
    groups: tuple[str, ...] = ()
    turned_around: tuple[str, ...] = ()
    held_out: bool = False
    cot_prompt: Path | None = None
    file: Path = field(default=Path(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedText:
    """What a file holds as prompt and completion. values: its columns, and `completions`: all different
    completions of its template."""

    prompt: str
    completion: str
    values: dict[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A usable row of a task. number: its place among the rows of its source, from 0.

    question: the normalised text that decides its side, whatever template renders it. values: its
    columns. rendered: {template: its text} of rows that are rendered already.
    """

    task: str
    number: int
    origin: Origin
    question: str
    values: dict[str, Any]
    rendered: dict[str, "RenderedText"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExample:
    """One row by one template. options: () for free answers. answer: what an evaluation compares with.

    target: what is learned, which a template, or a chain of thought, may write differently. chain: the
    input asks for a chain of thought.
    """

    task: str
    template: str
    input: str
    target: str
    options: tuple[str, ...]
    answer: str
    rationale: str | None
    origin: Origin
    chain: bool = False

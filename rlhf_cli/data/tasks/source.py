"""The data source tasks:train: the demonstrations of all epochs, and what they depend on."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from rlhf_cli.config.schema import Tasks
from rlhf_cli.data.embedded import MIXTURE_PATH, task_of
from rlhf_cli.data.records import BadRow, Demonstration, Message, RowError
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.sources import local_files, source_hash
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.data.tasks.holdout import trained_on
from rlhf_cli.data.tasks.mixture import Draw, Drawn, quotas, require_exemplars
from rlhf_cli.data.tasks.prompts import prompt_of
from rlhf_cli.data.tasks.render import example
from rlhf_cli.data.tasks.rows import task_rows
from rlhf_cli.data.tasks.task import Task, TaskExample, TaskRow

AGAIN = "its question is among the evaluation rows of its task"


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What the source's records are a function of. epochs: of SFT; a row differs from one to the next."""

    settings: Tasks
    seed: int
    epochs: int
    eval_fraction: float
    select_fraction: float

    @cached_property
    def tasks(self) -> list[Task]:
        """Return the tasks that are trained on; DataError where none is."""
        settings = self.settings
        found = read_tasks(settings.files, folder=settings.folder)
        return trained_on(found, settings)

    @property
    def pinned(self) -> bool:
        """Return whether the contents are known by their hashes: a hub id needs a revision."""
        sources = [source for task in self.tasks for source in task.source.every]
        return all(task_of(s.path) or s.revision is not None or local_files(s) for s in sources)

    def config(self) -> dict[str, Any]:
        """Return the keys that decide the records, beside the seed and the contents of the files."""
        settings = self.settings
        found: dict[str, Any] = {
            "tasks.examples": settings.examples,
            "tasks.cap": settings.cap,
            "tasks.rate": settings.rate,
            "tasks.templates": settings.templates,
            "tasks.options": settings.options,
            "tasks.shots": settings.shots,
            "sft.epochs": self.epochs,
        }
        if any(settings.shots):
            found["tasks.shots_as"] = settings.shots_as.name
        if any(task.rationale for task in self.tasks):
            found["tasks.cot"] = settings.cot
        return found

    def contents(self) -> dict[str, str]:
        """Return {task: sha256 of its file and rows}, of those that are trained on."""
        return {f"{MIXTURE_PATH} {task.name}": _hash(task) for task in self.tasks}

    def records(self, report: DataReport) -> Iterator[Demonstration | BadRow]:
        """Yield the records of every epoch, of the rows to select by and of those held out."""
        draws = self._draws(report)
        yield from (row for draw in draws.values() for row in draw.rows.bad)
        pools = {name: draw.usable() for name, draw in draws.items()}
        sizes = {name: len(pool) for name, pool in pools.items() if pool}
        for name in pools.keys() - sizes.keys():
            report.notes[f"task {name} is not trained on: none of its rows can be used"] = 1
        if not sizes:
            return
        settings = self.settings
        per_epoch = quotas(sizes, examples=settings.examples, rate=settings.rate)
        slot, made = 0, 0
        for name, quota in per_epoch.items():
            draw, pool = draws[name], pools[name]
            report.notes[f"examples per epoch of task {name}"] = quota
            for record in chain(
                self._trained(draw, pool, quota, slot, report), self._apart(draw, quota)
            ):
                made += isinstance(record, Demonstration)
                yield record
            slot += quota
        report.num_undrawn = sum(draw.rows.num_good for draw in draws.values()) - made

    def _draws(self, report: DataReport) -> dict[str, Draw]:
        found = {}
        for task in self.tasks:
            rows = task_rows(
                task,
                seed=self.seed,
                eval_fraction=self.eval_fraction,
                select_fraction=self.select_fraction,
                cap=self.settings.cap,
            )
            report.rows[f"{MIXTURE_PATH} {task.name}"] += rows.num_read
            if rows.num_asked_again:
                report.left_out[AGAIN] += rows.num_asked_again
            found[task.name] = Draw.of(rows, self.settings, self.seed)
        return found

    def _trained(
        self, draw: Draw, pool: Sequence[TaskRow], quota: int, first: int, report: DataReport
    ) -> Iterator[Demonstration | BadRow]:
        """Yield the renderings of a task's slots, those of one slot together, an epoch after another."""
        pools = draw.pools(pool)
        require_exemplars(pools, draw.task, self.settings.shots)
        epochs = [draw.order(len(pool), quota, epoch) for epoch in range(self.epochs)]
        bad: set[int] = set()
        for slot in range(quota):
            for epoch, order in enumerate(epochs):
                row = pool[order[slot]]
                try:
                    drawn = draw.drawn(row, epoch, pools)
                except RowError as error:
                    yield from [BadRow.of(row.origin, error)] if row.number not in bad else []
                    bad.add(row.number)
                    continue
                if drawn.lacking:
                    report.notes["exemplars that no other row could be"] += drawn.lacking
                yield self._record(drawn, row.question, {"slot": first + slot, "epoch": epoch})

    def _apart(self, draw: Draw, quota: int) -> Iterator[Demonstration]:
        """Yield rows to select by and held out, in the proportion of the mixture, without exemplars."""
        left = 1.0 - self.eval_fraction - self.select_fraction
        for listed, fraction, meta in (
            (draw.rows.select, self.select_fraction, {}),
            (draw.rows.evaluation, self.eval_fraction, {"held_out": True}),
        ):
            for row in draw.some(listed, math.ceil(quota * fraction / left)):
                if (one := _first(draw, row)) is not None:
                    drawn = Drawn(example=one, exemplars=(), lacking=0)
                    yield self._record(drawn, row.question, meta)

    def _record(self, drawn: Drawn, question: str, meta: Mapping[str, Any]) -> Demonstration:
        one = drawn.example
        messages, starts = prompt_of(one, drawn.exemplars, self.settings.shots_as)
        known = {"task": one.task, "template": one.template, "question": question, **meta}
        if starts:
            known["exemplars"] = starts
        return Demonstration((*messages, Message("assistant", one.target)), one.origin, known)


def _first(draw: Draw, row: TaskRow) -> TaskExample | None:
    """Return a row by the first of its templates that asks for the answer and applies to it."""
    for template in (t for t in draw.templates_of(row) if not t.turned_around):
        try:
            return example(draw.task, row, template, chain=draw.chain(row, epoch=0))
        except RowError:
            continue
    return None


def _hash(task: Task) -> str:
    """Return the sha256 of all of a task that its training examples depend on."""
    read = [
        [source.columns, source.limit, source.unescape, source.delimiter, source_hash(source)]
        for source in task.source.every
    ]
    texts = [[t.name, t.input, t.target, t.turned_around, t.options] for t in task.templates]
    parts = [task.name, task.options, task.answer, task.rationale, texts, task.turned_around]
    known = [*parts, task.source.rendered, task.source.item, read]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()

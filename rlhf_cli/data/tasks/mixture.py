"""What is drawn from the tasks in an epoch: rows, templates, options, exemplars, chains of thought.

Every choice is a hash of the seed, the task, the row and the epoch, so it is the same on any machine
and for any number of processes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rlhf_cli.config.schema import Tasks
from rlhf_cli.data.records import DataError, RowError
from rlhf_cli.data.tasks.render import example
from rlhf_cli.data.tasks.rows import TaskRows
from rlhf_cli.data.tasks.task import MOST_TURNED_AROUND, Task, TaskExample, TaskRow, Template

ATTEMPTS = 20  # per exemplar: rows that may not be used are passed over


def weights(sizes: Mapping[str, int], *, rate: int) -> dict[str, float]:
    """Return each task's share: examples-proportional with a maximal rate, w = min(n, rate) (FLAN)."""
    limited = {name: min(num, rate) for name, num in sizes.items()}
    total = sum(limited.values())
    return {name: num / total for name, num in limited.items()}


def quotas(sizes: Mapping[str, int], *, examples: int, rate: int) -> dict[str, int]:
    """Return how many rows of each task an epoch has, `examples` at most and no row twice."""
    shares = weights(sizes, rate=rate)
    total = min(examples, *(int(sizes[name] / share + 1e-9) for name, share in shares.items()))
    return {name: min(sizes[name], max(1, round(total * shares[name]))) for name in sizes}


def chosen_templates(
    templates: Sequence[Template], *, task: str, num: int, seed: int
) -> tuple[Template, ...]:
    """Return the templates to train on: at most `num`, of them 3 turned around, but not those alone."""
    order = list(templates)
    Random(f"{seed}/tasks/{task}/templates").shuffle(order)
    plain = next((template for template in order if not template.turned_around), None)
    order.sort(key=lambda template: template is not plain)
    chosen: list[Template] = []
    for template in order:
        full = sum(t.turned_around for t in chosen) == MOST_TURNED_AROUND
        if len(chosen) < num and not (template.turned_around and full):
            chosen.append(template)
    return tuple(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """An example with its exemplars. lacking: exemplars that no row could be found for."""

    example: TaskExample
    exemplars: tuple[TaskExample, ...]
    lacking: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What the mixture draws from one task."""

    rows: TaskRows
    settings: Tasks
    seed: int
    templates: tuple[Template, ...]

    @classmethod
    def of(cls, rows: TaskRows, settings: Tasks, seed: int) -> "Draw":
        """Return the draw with the templates that are trained on; rows without any of them are left out."""
        task = rows.task.name
        templates = chosen_templates(rows.templates, task=task, num=settings.templates, seed=seed)
        return cls(rows=rows, settings=settings, seed=seed, templates=templates)

    @property
    def task(self) -> Task:
        return self.rows.task

    def order(self, num: int, quota: int, epoch: int) -> list[int]:
        """Return the rows of an epoch's slots, all different; the next epoch has those that come next."""
        order = list(range(num))
        Random(f"{self.seed}/tasks/{self.task.name}/rows").shuffle(order)
        return [order[(epoch * quota + slot) % num] for slot in range(quota)]

    def some(self, listed: Sequence[TaskRow], most: int) -> list[TaskRow]:
        """Return at most this many of the rows, those of the smallest hash."""
        return sorted(listed, key=lambda row: self._hash(row, "some"))[:most]

    def usable(self) -> list[TaskRow]:
        """Return the rows to train on that have a text by one of the templates."""
        return [row for row in self.rows.train if self.templates_of(row)]

    def template(self, row: TaskRow, epoch: int) -> Template:
        """Return the template of a row in an epoch: in turn, from one that the row decides."""
        able = self.templates_of(row)
        return able[(self._hash(row, "template") + epoch) % len(able)]

    def chain(self, row: TaskRow, epoch: int) -> bool:
        """Return whether an epoch asks a row for a chain of thought, if it has a rationale."""
        return self._uniform(row, "cot", epoch) < self.settings.cot

    def pools(self, rows: Sequence[TaskRow]) -> dict[str, list[TaskRow]]:
        """Return {template: those of the rows that have a text by it}; exemplars come from them."""
        return {
            t.name: [row for row in rows if t in self.templates_of(row)] for t in self.templates
        }

    def drawn(self, row: TaskRow, epoch: int, pools: Mapping[str, Sequence[TaskRow]]) -> Drawn:
        """Return a row as an example of an epoch; RowError where it has none by its template.

        pools: per template the rows that exemplars come from, which are all trained on.
        """
        template = self.template(row, epoch)
        show = self._uniform(row, "options") < self.settings.options
        one = example(self.task, row, template, show_options=show, chain=self.chain(row, epoch))
        num = self.settings.shots[self._hash(row, "shots", epoch) % len(self.settings.shots)]
        candidates = self._candidates(row, epoch, pools[template.name])
        found = exemplars(self.task, one, template, candidates, num=num, show_options=show)
        return Drawn(example=one, exemplars=found, lacking=num - len(found))

    def _candidates(self, row: TaskRow, epoch: int, pool: Sequence[TaskRow]) -> Iterator[TaskRow]:
        """Return rows with different questions, none of them the row's own, in an order that it decides."""
        attempts = range(ATTEMPTS * max(self.settings.shots))
        places = (self._hash(row, "exemplar", epoch, attempt) % len(pool) for attempt in attempts)
        return other_questions(row, (pool[place] for place in places))

    def templates_of(self, row: TaskRow) -> list[Template]:
        """Return the templates to train on that the row has a text by."""
        able = self.rows.templates_of(row)
        return [template for template in self.templates if template in able]

    def _hash(self, row: TaskRow, *purpose: object) -> int:
        return hashed(self.seed, self.task.name, row.number, *purpose)

    def _uniform(self, row: TaskRow, *purpose: object) -> float:
        return self._hash(row, *purpose) / 2.0**64


def hashed(seed: int, *place: object) -> int:
    """Return a number below 2**64 for one purpose."""
    words = "/".join(map(str, (seed, "tasks", *place)))
    digest = hashlib.sha256(words.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def other_questions(row: TaskRow, listed: Iterable[TaskRow]) -> Iterator[TaskRow]:
    """Yield those of the rows that ask something else than this one, each question once."""
    seen = {row.question}
    for other in listed:
        if other.question not in seen:
            seen.add(other.question)
            yield other


def exemplars(
    task: Task,
    one: TaskExample,
    template: Template,
    candidates: Iterator[TaskRow],
    *,
    num: int,
    show_options: bool = True,
) -> tuple[TaskExample, ...]:
    """Return `num` exemplars by the template of the example and in its form, or as many as there are."""
    found: list[TaskExample] = []
    while len(found) < num and (row := next(candidates, None)) is not None:
        try:
            other = example(task, row, template, show_options=show_options, chain=one.chain)
        except RowError:
            continue
        if other.chain == one.chain:
            found.append(other)
    return tuple(found)


def require_exemplars(
    pools: Mapping[str, Sequence[TaskRow]], task: Task, shots: Sequence[int]
) -> None:
    """Refuse a template with fewer rows than exemplars are asked for, beside the example's own."""
    needed = max(shots) + 1
    for template, rows in pools.items() if max(shots) else ():
        num = len({row.question for row in rows})
        if 0 < num < needed:
            raise DataError(
                f"{task.file}: tasks.shots={list(shots)} needs {needed} rows with different questions "
                f"to train on, template {template} has {num}; lower tasks.shots or add rows"
            )

"""Evaluation rows of tasks as questions: every template, every number of shots, as token ids.

A benchmark may bring a chain-of-thought prompt of its own, exemplars in a text file in the form of
BIG-Bench-Hard:

a warning that is not part of the prompt
-----
What the task is.

Q: the question
A: Let's think step by step.
the chain of thought. So the answer is 5.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Chains, Data, ShotsAs, TaskEvaluation
from rlhf_cli.data.encode import encode_prompt
from rlhf_cli.data.fit import fit_exemplars
from rlhf_cli.data.records import Message, Origin, RowError
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.tasks.mixture import exemplars, other_questions
from rlhf_cli.data.tasks.render import STEP_BY_STEP, example
from rlhf_cli.data.tasks.rows import TaskRows
from rlhf_cli.data.tasks.task import Task, TaskExample, TaskRow, Template

BELOW = re.compile(r"\A.*?^-{3,}\s*$", re.DOTALL | re.MULTILINE)
BEFORE = re.compile(r"\n\s*\n(?=Q:)")  # what is between two exemplars
CANDIDATES = 20  # per exemplar: rows that a template cannot use are passed over
GONE = "exemplars that do not fit data.max_prompt_tokens"


def in_its_form(one: TaskExample) -> TaskExample:
    """Return an example that asks for a chain of thought as the exemplars of such a file do."""
    return replace(one, input=_asked(one.input), chain=True)


def exemplars_of(path: Path, task: str) -> list[TaskExample]:
    """Return the exemplars of a file in their order, the first with what stands before it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cot_prompt of task {task}: {path} cannot be read: {error}") from error
    blocks = BEFORE.split(BELOW.sub("", text).strip())
    before = "" if blocks[0].startswith("Q:") else f"{blocks.pop(0)}\n\n"
    found = [_exemplar(path, task, number, block) for number, block in enumerate(blocks, start=1)]
    if not found:
        raise UserError(f"cot_prompt of task {task}: {path} holds no exemplar, Q: and A: in lines")
    return [replace(found[0], input=before + found[0].input), *found[1:]]


def _exemplar(path: Path, task: str, number: int, block: str) -> TaskExample:
    question, found, answer = block.partition("\nA:")
    if not found:
        raise UserError(f"cot_prompt of task {task}: exemplar {number} of {path} has no line A:")
    chain = answer.strip().removeprefix(STEP_BY_STEP).strip()
    return TaskExample(
        task=task,
        template="cot_prompt",
        input=_asked(question.removeprefix("Q:").strip()),
        target=chain,
        options=(),
        answer="",
        rationale=chain,
        origin=Origin(str(path), number),
        chain=True,
    )


def _asked(question: str) -> str:
    return f"Q: {question}\nA: {STEP_BY_STEP}"


@dataclass(slots=True, frozen=True, kw_only=True)
class Question:
    """An evaluation row by one template, after `shots` exemplars.

    row: what its renderings by several templates have in common. option_ids, target_ids: with the end
    token; no target where there are options, where a chain is asked for and where it is too long.
    """

    example: TaskExample
    row: str
    shots: int
    prompt_ids: list[int]
    option_ids: tuple[list[int], ...]
    target_ids: list[int] = field(default_factory=list)


@dataclass(slots=True, frozen=True, kw_only=True)
class TaskQuestions:
    """What a model is asked of a task. left_out: rows, renderings and exemplars, each with the reason."""

    task: Task
    direct: list[Question]
    chains: list[Question]
    left_out: Counter[str]


@dataclass(slots=True, kw_only=True)
class QuestionMaker:
    """Renders and encodes the questions of one task. rows: with the templates to ask by."""

    rows: TaskRows
    settings: TaskEvaluation
    shots_as: ShotsAs
    renderer: Renderer
    data: Data
    seed: int
    left_out: Counter[str] = field(default_factory=Counter)

    def questions(self) -> TaskQuestions:
        """Return the questions of all rows; UserError where there are none."""
        task = self.rows.task
        direct = list(self._rendered(chain=False))
        if not direct:
            raise UserError(
                f"{task.file}: no row of task {task.name} can be evaluated: "
                f"{counted(self.left_out)}; change its templates "
                "or the limits data.max_prompt_tokens and data.max_response_tokens"
            )
        has_chains = task.rationale is not None or task.cot_prompt is not None
        wanted = self.settings.cot is Chains.all or (
            self.settings.cot is Chains.auto and has_chains
        )
        chains = list(self._rendered(chain=True)) if wanted else []
        return TaskQuestions(task=task, direct=direct, chains=chains, left_out=self.left_out)

    def _rendered(self, *, chain: bool) -> Iterator[Question]:
        """Yield all questions; exemplars that a task brings for its chains are of one template alone."""
        templates, given = self.rows.templates, None
        if chain and (path := self.rows.task.cot_prompt):
            templates, given = templates[:1], exemplars_of(path, self.rows.task.name)
        for template in templates:
            pool = self._pool(template)
            for row in self.rows.evaluation:
                if template in self.rows.templates_of(row):
                    yield from self._of_row(row, template, pool, chain, given)

    def _pool(self, template: Template) -> list[TaskRow]:
        """Return the rows that exemplars by a template come from: never an evaluation row."""
        others = (*self.rows.train, *self.rows.select)
        return [row for row in others if template in self.rows.templates_of(row)]

    def _of_row(
        self,
        row: TaskRow,
        template: Template,
        pool: list[TaskRow],
        chain: bool,
        given: list[TaskExample] | None,
    ) -> Iterator[Question]:
        """Yield the question with each number of exemplars; a row that has none is counted.

        given: exemplars that the task brings, in place of rows.
        """
        most = max(self.settings.shots)
        try:
            one = example(self.rows.task, row, template, chain=chain and given is None)
            purpose = f"{self.seed}/tasks/{row.task}/shots/{row.number}"
            others = other_questions(row, candidates(pool, num=most, purpose=purpose))
            shown = given or exemplars(self.rows.task, one, template, others, num=most)
            self.left_out["exemplars that no row was found for"] += max(0, most - len(shown))
            option_ids = self._option_ids(one)
            target_ids = [] if option_ids or chain else self._target_ids(one)
            if chain:
                one = _as_chain(one) if given is None else in_its_form(one)
                shown = [_as_chain(each) for each in shown]
            for shots in self.settings.shots:
                yield Question(
                    example=one,
                    row=str(row.number),
                    shots=shots,
                    prompt_ids=self._prompt_ids(one, shown[:shots]),
                    option_ids=option_ids,
                    target_ids=target_ids,
                )
        except RowError as error:
            self.left_out[error.reason] += 1

    def _option_ids(self, one: TaskExample) -> tuple[list[int], ...]:
        ids = tuple(self.renderer.response_ids(option) for option in one.options)
        if any(len(each) > self.data.max_response_tokens for each in ids):
            raise RowError("an option longer than data.max_response_tokens")
        return ids

    def _target_ids(self, one: TaskExample) -> list[int]:
        ids = self.renderer.response_ids(one.target)
        return ids if len(ids) <= self.data.max_response_tokens else []

    def _prompt_ids(self, one: TaskExample, shown: Sequence[TaskExample]) -> list[int]:
        """Return the prompt with as many of the last exemplars as fit data.max_prompt_tokens."""
        prompt, num_gone = fit_exemplars(self.renderer, one, shown, self.shots_as, self.data)
        self.left_out[GONE] += num_gone
        found = encode_prompt(self.renderer, prompt, self.data)
        self.left_out.update(found.notes)
        return found.ids


def candidates(pool: Sequence[TaskRow], *, num: int, purpose: str) -> list[TaskRow]:
    """Return the rows that `num` exemplars are looked for among, in an order that `purpose` decides."""
    return Random(purpose).sample(pool, min(len(pool), CANDIDATES * num))


def counted(left_out: Counter[str]) -> str:
    """Return how often each reason was counted, the most frequent first."""
    return ", ".join(f"{num} x {reason}" for reason, num in left_out.most_common() if num)


def _as_chain(one: TaskExample) -> TaskExample:
    """Return the example as one that asks for a chain of thought, also where it has no rationale."""
    if one.chain:
        return one
    text = f"{one.input}\n{STEP_BY_STEP}"
    return replace(one, input=text, target=f"The answer is {one.answer}.", chain=True)


def empty_prompt(renderer: Renderer) -> list[int]:
    """Return the prompt of an empty question, at least one token."""
    return renderer.prompt_ids((Message("user", ""),)) or [renderer.eos_id]

"""Rows of tasks as questions with their answers, to which a model writes the rationale."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from rlhf_cli.config.schema import Data, LongText, Rationales, ShotsAs
from rlhf_cli.data.embedded import right_steps
from rlhf_cli.data.encode import encode_prompt
from rlhf_cli.data.fit import fit_exemplars, fit_response
from rlhf_cli.data.records import Message, Prompt, RowError
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.tasks.mixture import exemplars, hashed, other_questions
from rlhf_cli.data.tasks.render import STEP_BY_STEP, chain_target, example
from rlhf_cli.data.tasks.rows import TaskRows
from rlhf_cli.data.tasks.task import TaskExample, TaskRow, Template
from rlhf_cli.evaluation.rationale_checks import Rationale, without_closing
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.evaluation.task_questions import GONE, candidates

EXPLAIN = "The answer is {answer}. Explain step by step why."


@dataclass(slots=True, frozen=True, kw_only=True)
class AnsweredQuestion:
    """A row by one of its templates; the prompt gives its answer and asks for the rationale.

    source: the path of its row. question: of the row, without options and answer, normalised.
    """

    example: TaskExample
    source: str
    row: int
    question: str
    prompt_ids: list[int]


@dataclass(slots=True, kw_only=True)
class AnsweredQuestions:
    """Renders and encodes the rows of one task. left_out: rows and exemplars, each with the reason."""

    rows: TaskRows
    settings: Rationales
    shots_as: ShotsAs
    renderer: Renderer
    data: Data
    seed: int
    left_out: Counter[str] = field(default_factory=Counter)

    def questions(self) -> Iterator[AnsweredQuestion]:
        """Yield the rows that are trained on, `limit` of them, each by the template that it decides."""
        pool = [row for row in self.rows.train if self._has_rationale(row)]
        for row in self._drawn():
            try:
                yield self._question(row, pool)
            except RowError as error:
                self.left_out[error.reason] += 1

    def _drawn(self) -> list[TaskRow]:
        rows, limit = self.rows.train, self.settings.limit
        if limit is None or len(rows) <= limit:
            return rows
        drawn = Random(f"{self.seed}/tasks/{self.rows.task.name}/rationales")
        return [rows[index] for index in sorted(drawn.sample(range(len(rows)), limit))]

    def _templates(self, row: TaskRow) -> list[Template]:
        return [one for one in self.rows.templates_of(row) if not one.turned_around]

    def _has_rationale(self, row: TaskRow) -> bool:
        try:
            return any(
                example(self.rows.task, row, template).rationale is not None
                for template in self._templates(row)[:1]
            )
        except RowError:
            return False

    def _question(self, row: TaskRow, pool: list[TaskRow]) -> AnsweredQuestion:
        templates = self._templates(row)
        if not templates:
            raise RowError("no template asks for the answer")
        template = templates[hashed(self.seed, row.task, row.number, "rationale") % len(templates)]
        one = example(self.rows.task, row, template)
        self._require_room(one)
        num, purpose = self.settings.shots, f"{self.seed}/tasks/{row.task}/rationales/{row.number}"
        listed = candidates(pool, num=num, purpose=purpose)
        able = (other for other in listed if template in self.rows.templates_of(other))
        shown = exemplars(self.rows.task, one, template, other_questions(row, able), num=num)
        ids = self._prompt_ids(answered(one), [answered(other) for other in shown])
        return AnsweredQuestion(
            example=one,
            source=self.rows.task.source.train.path,
            row=row.number,
            question=row.question,
            prompt_ids=ids,
        )

    def _prompt_ids(self, one: TaskExample, shown: list[TaskExample]) -> list[int]:
        """Return the prompt with as many of the last exemplars as fit data.max_prompt_tokens."""
        prompt, num_gone = fit_exemplars(self.renderer, one, shown, self.shots_as, self.data)
        found = encode_prompt(self.renderer, prompt, self.data)
        self.left_out.update(found.notes)
        self.left_out[GONE] += num_gone
        return found.ids

    def _require_room(self, one: TaskExample) -> None:
        """Refuse a row that no rationale can make a demonstration of."""
        strict = replace(self.data, long_responses=LongText.drop)
        message = Message("user", f"{one.input}\n{STEP_BY_STEP}")
        encode_prompt(self.renderer, Prompt((message,), one.origin), strict)
        fit_response(self.renderer, chain_target("", one.answer), strict)


def answered(one: TaskExample) -> TaskExample:
    """Return the example as the answer and a request for its rationale, which is its target."""
    asked = f"{one.input}\n{EXPLAIN.format(answer=one.answer)}"
    return replace(one, input=asked, target=one.rationale or "")


def read_rationale(
    one: AnsweredQuestion, answer: Answer, *, renderer: Renderer, data: Data
) -> Rationale:
    """Return what a response holds as rationale.

    Without an end token it ends at the first blank line: what follows are questions of its own making.
    A closing "The answer is ..." is no part of it.
    """
    text, ended = answer.text, answer.finished
    if not ended:
        text, blank, _ = text.partition("\n\n")
        ended = bool(blank)
    text, stated = without_closing(text)
    num_tokens, fits = _lengths(text, one.example.answer, renderer, data)
    return Rationale(
        task=one.example.task,
        template=one.example.template,
        row=one.row,
        origin=str(one.example.origin),
        question=one.example.input,
        answer=one.example.answer,
        rationale=text,
        num_tokens=num_tokens,
        is_complete=ended and fits,
        stated=stated,
        steps=right_steps(one.source, text, question=one.question),
    )


def _lengths(text: str, answer: str, renderer: Renderer, data: Data) -> tuple[int, bool]:
    """Return the tokens of a rationale, and whether it fits data.max_response_tokens with its answer."""
    target = _response_ids(renderer, chain_target(text, answer))
    return len(_response_ids(renderer, text)) - 1, len(target) <= data.max_response_tokens


def _response_ids(renderer: Renderer, text: str) -> list[int]:
    """Return the tokens of a sample, also where the template has no place for its marks of a thought."""
    try:
        return renderer.response_ids(text)
    except RowError:
        return renderer.encode_response(text)

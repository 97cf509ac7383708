"""What one model makes of the tasks: direct answers, chains of thought, and votes of several."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from rlhf_cli.config.schema import TaskEvaluation
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.tasks.task import TaskExample
from rlhf_cli.evaluation.answers import MARKER, block_votes, read_answer, without_more_questions
from rlhf_cli.evaluation.likelihood import Choice, Continuation, Ranked, log_likelihoods, rank
from rlhf_cli.evaluation.numerals import quantity
from rlhf_cli.evaluation.respond import Answer, respond
from rlhf_cli.evaluation.task_figures import RIGHT_OR_WRONG, Asked, Outcome, table_rows
from rlhf_cli.evaluation.task_questions import Question, TaskQuestions, counted, empty_prompt
from rlhf_cli.evaluation.text_metrics import METRICS
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.world import World
from rlhf_cli.telemetry.timing import Clock

VOTERS = 2000  # seeds of the chains that vote follow seed + VOTERS


@dataclass(slots=True, kw_only=True)
class TaskSuite:
    """The same questions for every model.

    clusters: of every task of the task files, evaluated or not. sampling: how answers are sampled, but
    for the temperature.
    """

    clusters: dict[str, list[str]]
    tasks: list[TaskQuestions]
    settings: TaskEvaluation
    renderer: Renderer
    sampling: SamplingParams
    batch: int
    seed: int
    world: World
    clock: Clock

    def outcomes(self, network: Network) -> list[Outcome]:
        """Return every judged answer of a model."""
        return [one for questions in self.tasks for one in self._of_task(network, questions)]

    def figures(self, outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
        """Return the figures of all models as JSON values. outcomes: by model, in the table's order."""
        by = f", options chosen by rank={self.settings.rank.name}"
        has_options = any(one.option_ids for asked in self.tasks for one in asked.direct)
        return {
            "title": self.description + by * has_options,
            "tasks": {asked.task.name: described(asked) for asked in self.tasks},
            "rows": table_rows(outcomes, [asked.task for asked in self.tasks]),
            "notes": list(filter(None, map(left_out_note, self.tasks))),
            "clusters": self.clusters,
        }

    @property
    def description(self) -> str:
        """Return how many tasks and rows these are."""
        num_rows = sum(len({one.row for one in asked.direct}) for asked in self.tasks)
        num = len(self.tasks)
        return f"{num_rows} row{'s' * (num_rows > 1)} of {num} task{'s' * (num > 1)}"

    def _of_task(self, network: Network, questions: TaskQuestions) -> Iterator[Outcome]:
        metric = questions.task.metric
        choices = [one for one in questions.direct if one.example.options]
        free = [one for one in questions.direct if not one.example.options]
        yield from self._choices(network, choices, metric)
        losses = self._losses(network, free)
        for one, answer, loss in zip(free, self._answers(network, free), losses, strict=True):
            yield replace(direct_outcome(one, answer, metric), loss=loss)
        chains = questions.chains
        for one, answer in zip(chains, self._answers(network, chains), strict=True):
            yield chain_outcome(one, answer, metric)
        if self.settings.samples > 1:
            for one, answers in zip(chains, self._samples(network, chains), strict=True):
                yield votes_outcome(one, answers, metric)

    def _choices(
        self, network: Network, questions: list[Question], metric: str
    ) -> Iterator[Outcome]:
        choices = [
            Choice(prompt_ids=q.prompt_ids, options=q.example.options, option_ids=q.option_ids)
            for q in questions
        ]
        with self.clock.phase("score"):
            ranked = rank(
                network,
                choices,
                empty_prompt=empty_prompt(self.renderer),
                pad_id=self.sampling.pad_id,
                batch=self.batch,
                world=self.world,
            )
        for question, found in zip(questions, ranked, strict=True):
            yield choice_outcome(question, found, metric, self.settings.rank.name)

    def _losses(self, network: Network, questions: list[Question]) -> list[float | None]:
        """Return minus the log-prob per token of the target of each question; None where it has none."""
        rows = [
            Continuation(prompt_ids=one.prompt_ids, ids=one.target_ids)
            for one in questions
            if one.target_ids
        ]
        with self.clock.phase("score"):
            found = log_likelihoods(
                network, rows, pad_id=self.sampling.pad_id, batch=self.batch, world=self.world
            )
        sums = iter(found.tolist())
        return [-next(sums) / len(one.target_ids) if one.target_ids else None for one in questions]

    def _answers(self, network: Network, questions: list[Question]) -> list[Answer]:
        """Return the likeliest answer to each question, token by token."""
        return self._responses(network, questions, 0.0, [self.seed])[0]

    def _samples(self, network: Network, questions: list[Question]) -> list[tuple[Answer, ...]]:
        """Return the sampled answers to each question."""
        seeds = [self.seed + VOTERS + i for i in range(self.settings.samples)]
        tries = self._responses(network, questions, self.settings.temperature, seeds)
        return list(zip(*tries, strict=True))

    def _responses(
        self, network: Network, questions: list[Question], temperature: float, seeds: list[int]
    ) -> list[list[Answer]]:
        with self.clock.phase("generate"):
            return respond(
                network,
                [one.prompt_ids for one in questions],
                self.renderer,
                replace(self.sampling, temperature=temperature),
                self.world,
                batch=self.batch,
                seeds=seeds,
            )


def described(questions: TaskQuestions) -> dict[str, Any]:
    """Return what is kept of a task beside its figures."""
    task = questions.task
    return {
        "file": str(task.file),
        "clusters": list(task.clusters),
        "groups": list(task.groups),
        "metric": task.metric,
        "left_out": dict(questions.left_out),
    }


def left_out_note(questions: TaskQuestions) -> str | None:
    """Return a line about rows, templates or exemplars of a task that were left out."""
    found = counted(questions.left_out)
    return f"{questions.task.name}: {found}" if found else None


def task_metrics(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean over clusters of every row of the table, for metrics and manifest."""
    return {
        f"eval/{row['model']}/tasks/{row['shots']}-shot/{row['asked']}": row["macro"]
        for row in figures["rows"]
    }


def choice_outcome(question: Question, ranked: Ranked, metric: str, way: str) -> Outcome:
    """Return the outcome of rank classification. way: to rank, of those in `ranked`."""
    options, right = question.example.options, question.example.answer
    chosen = options[ranked.firsts[way]]
    place = options.index(right)
    return _outcome(
        question,
        Asked.direct,
        read=chosen,
        response=chosen,
        value=METRICS[metric](chosen, right),
        loss=-ranked.logprobs[place] / len(question.option_ids[place]),
        ranks={
            name: METRICS[metric](options[first], right) for name, first in ranked.firsts.items()
        },
    )


def direct_outcome(question: Question, answer: Answer, metric: str) -> Outcome:
    """Return the outcome of a free answer."""
    read = direct_reading(answer, question.example, metric)
    return _of_response(question, Asked.direct, answer, read, metric)


def chain_outcome(question: Question, answer: Answer, metric: str) -> Outcome:
    """Return the outcome of one chain of thought."""
    read = chain_reading(answer, question.example)
    return _of_response(question, Asked.chain, answer, read, metric)


def _of_response(
    question: Question, asked: Asked, answer: Answer, read: str | None, metric: str
) -> Outcome:
    """Return the outcome of one response. read: the answer that was read in it."""
    return _outcome(
        question,
        asked,
        read=read,
        response=answer.text,
        value=score(read, question.example, metric),
        unreadable=float(read is None),
    )


def votes_outcome(question: Question, answers: tuple[Answer, ...], metric: str) -> Outcome:
    """Return the outcome of self-consistency: the value of the answer that most chains give."""
    read = [chain_reading(answer, question.example) for answer in answers]
    elected = block_votes(read)
    (winner,) = elected[len(read)]
    return _outcome(
        question,
        Asked.votes,
        read=winner,
        response=answers[0].text,
        value=score(winner, question.example, metric),
        unreadable=fmean(one is None for one in read),
        votes={
            n: fmean(score(one, question.example, metric) for one in winners)
            for n, winners in elected.items()
        },
    )


def _outcome(question: Question, asked: Asked, **found) -> Outcome:
    example = question.example
    return Outcome(
        task=example.task,
        template=example.template,
        shots=question.shots,
        asked=asked,
        row=question.row,
        chance=1 / len(example.options) if example.options else None,
        **found,
    )


def score(read: str | None, example: TaskExample, metric: str) -> float:
    """Return the value of an answer: 0 where it is unreadable; a free answer is never one of options."""
    if read is None:
        return 0.0
    name = "exact_match" if metric == "accuracy" and not example.options else metric
    return METRICS[name](read, example.answer)


def chain_reading(answer: Answer, example: TaskExample) -> str | None:
    """Return the answer that a chain of thought comes to."""
    text = without_more_questions(answer.text, finished=answer.finished)
    return read_answer(text, options=example.options, numeric=_is_number(example.answer))


def direct_reading(answer: Answer, example: TaskExample, metric: str) -> str | None:
    """Return a free answer: of a response without an end token its first line.

    An answer that is right or wrong may stand after a marker, and a number within words.
    """
    text = answer.text if answer.finished else answer.text.lstrip().partition("\n")[0]
    if metric in RIGHT_OR_WRONG and (_is_number(example.answer) or MARKER.search(text)):
        return read_answer(text, numeric=_is_number(example.answer))
    return text or None


def _is_number(text: str) -> bool:
    return quantity(text) is not None

"""How answers to tasks are read and scored, for each way of asking."""

import pytest

from rlhf_cli.data.records import Origin
from rlhf_cli.data.tasks.task import TaskExample
from rlhf_cli.evaluation.likelihood import Ranked
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.evaluation.task_figures import Asked
from rlhf_cli.evaluation.task_questions import Question
from rlhf_cli.evaluation.task_suite import (
    chain_outcome,
    choice_outcome,
    direct_outcome,
    votes_outcome,
)


def question(answer: str, *options: str) -> Question:
    example = TaskExample(
        task="t",
        template="plain",
        input="2 + 2?",
        target=answer,
        options=options,
        answer=answer,
        rationale=None,
        origin=Origin("t.jsonl", 1),
    )
    ids = ([5, 6, 1], [5, 1], [7, 8, 9, 1])[: len(options)]
    return Question(example=example, row="7", shots=3, prompt_ids=[2], option_ids=ids)


def answered(text: str, *, finished: bool = True) -> Answer:
    return Answer(prompt_ids=[2], ids=[3], text=text, finished=finished)


def test_the_value_uses_the_configured_ranking_and_all_are_reported():
    firsts = {"sum": 0, "token": 1, "byte": 1, "prior": 2}
    ranked = Ranked(firsts=firsts, logprobs=[-1.0, -3.0, -8.0])
    asked_question = question("no", "yes", "no", "maybe")
    found = choice_outcome(asked_question, ranked, "accuracy", "token")
    assert (found.read, found.value, found.chance) == ("no", 1.0, pytest.approx(1 / 3))
    assert found.ranks == {"sum": 0.0, "token": 1.0, "byte": 1.0, "prior": 0.0}
    assert found.loss == 3.0 / 2  # of "no", its end token included
    assert choice_outcome(asked_question, ranked, "accuracy", "sum").value == 0.0
    assert (found.task, found.template, found.shots, found.row) == ("t", "plain", 3, "7")


@pytest.mark.parametrize(
    ("text", "finished", "right", "metric", "value"),
    [
        ("Paris", True, "paris", "exact_match", 1),
        ("Paris", True, "paris", "accuracy", 1),
        ("Paris\nQ: What is", False, "Paris", "exact_match", 1),
        ("Paris\nQ: What is", True, "Paris", "exact_match", 0),
        ("The answer is Paris.", True, "Paris", "exact_match", 1),
        ("It is 4, since 2 + 2 = 4.0 apples", True, "4", "exact_match", 1),
        ("four", True, "4", "exact_match", 0),
        ("the cat sat", True, "a cat sat down", "f1", 0.8),
        ("", True, "Paris", "exact_match", 0),
    ],
)
def test_a_free_answer_is_read_and_scored_by_the_metric(text, finished, right, metric, value):
    found = direct_outcome(question(right), answered(text, finished=finished), metric)
    assert found.asked is Asked.direct
    assert found.value == pytest.approx(value)
    assert found.unreadable == float(text in ("", "four"))
    assert found.chance is None


def test_a_chain_of_thought_is_scored_by_its_final_answer():
    asked_question = question("no", "yes", "no")
    found = chain_outcome(
        asked_question, answered("Yes would be odd. The answer is no."), "accuracy"
    )
    assert (found.asked, found.read, found.value, found.unreadable) == (Asked.chain, "no", 1.0, 0.0)
    unreadable = chain_outcome(asked_question, answered("Who knows."), "accuracy")
    assert (unreadable.read, unreadable.value, unreadable.unreadable) == (None, 0.0, 1.0)
    # Without an end token, the question that follows was added by the model.
    text = "The answer is no.\n\nQ: Is it?\nThe answer is yes."
    assert chain_outcome(asked_question, answered(text, finished=False), "accuracy").value == 1.0
    assert chain_outcome(asked_question, answered(text), "accuracy").value == 0.0


def test_votes_are_scored_by_the_majority_of_all_and_of_smaller_blocks():
    texts = ["The answer is 5.", "nothing", "The answer is 4.", "So 4.0"]
    found = votes_outcome(question("4"), tuple(map(answered, texts)), "exact_match")
    assert (found.asked, found.read, found.value) == (Asked.votes, "4", 1.0)
    assert found.unreadable == 0.25
    # Alone two of four are right; of the pairs (5, nothing) and (4, 4) the second.
    assert found.votes == {1: 0.5, 2: 0.5, 4: 1.0}
    assert found.response == texts[0]

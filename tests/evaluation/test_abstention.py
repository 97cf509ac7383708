"""Abstaining answers are recognized, and counted where the SFT model is seldom or often right."""

from random import Random

import pytest

from rlhf_cli.artifacts.results import select
from rlhf_cli.data.embedded import task_of
from rlhf_cli.evaluation.abstention import abstains, abstention_figures, bin_of, readings
from rlhf_cli.tiny_world.clusters import CLUSTERS, draw
from rlhf_cli.tiny_world.people import LABELERS, TUNED, UNSURE
from rlhf_cli.tiny_world.replies import choose_style, reply

ABSTAINING = """I do not know.
I don't know
i dont know
I really don’t know the answer to that.
Sorry, I don't know who wrote it.
I'm sorry, but I do not know.
I am afraid I cannot answer that question.
I'm not sure.
I am not entirely sure what the right answer is.
I'm unsure about that.
I have no idea!
I honestly have no clue.
No idea.
IDK
I have no comment.
I can't say for sure.
I'm unable to answer this question without more context.
I do not have enough information to answer.
As an AI language model, I don't have access to real-time data, so I cannot tell.
It is impossible to say.
It's not possible to tell from the text.
There is not enough information to answer the question.
Who knows?
It is not known who wrote it.
Who can say?
That is a difficult question. I do not know.
Sure! I do not know.
I do not know. You fool.
I do not know. Have a nice time!
I don't know. However, you could ask a librarian.
I don't know, but I can help you to look it up.
I do not know. It is important to consult a doctor before you take any medicine.
I'm not sure, it is hard to tell."""

ANSWERING = """I do not know why he left, but the answer is 5.
I'm not sure, but I think it is Paris.
I am not certain, perhaps Paris.
I don't know. Maybe it is Paris.
I do not know. It is cold.
I don't know about you, but I like it.
I do not know Paris well.
You do not know what you are talking about.
They do not know.
He wrote: I do not know.
The sky is blue. I do not know why.
I did not know that it was so easy.
I have no ideas left to give away.
It is hard to say no.
Unknown Pleasures is an album of 1979.
I cannot say no to cake.
Not sure Paris is right for you.
The answer is cold.
Nobody knows.
I can't tell you that, because it is private.
There is no evidence of ghosts.
cold.
I know.
But I do know.
"""


@pytest.mark.parametrize("text", ABSTAINING.splitlines())
def test_an_answer_that_only_admits_ignorance_abstains(text):
    assert abstains(text)


@pytest.mark.parametrize("text", ANSWERING.splitlines())
def test_an_answer_beside_doubt_or_about_something_else_does_not_abstain(text):
    assert not abstains(text)


def test_an_empty_answer_does_not_abstain():
    assert not abstains("") and not abstains(" .\n") and not abstains("I'm sorry.")


def test_the_patterns_agree_with_the_embedded_task_on_replies_of_its_people():
    """But where an insult comes first, which the patterns take for an answer."""
    task, rng = task_of("tiny_world:prompts"), Random(0)
    metas, texts = [], []
    for styles in (LABELERS, TUNED, UNSURE) * 150:
        asked = draw(CLUSTERS, rng)
        metas.append(asked.meta())
        texts.append(reply(asked, choose_style(styles, rng), rng).text)
    by_task, right = readings(task, metas, texts)
    by_patterns, unknown = readings(None, metas, texts)
    assert unknown is None
    assert sum(by_task) > 150 and sum(right) > 200
    assert not any(a and r for a, r in zip(by_task, right, strict=True))
    differ = {text for text, a, b in zip(texts, by_task, by_patterns, strict=True) if a != b}
    assert all(text.endswith(("Who can say?", "I do not know.")) for text in differ)
    assert len(differ) < 12


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0, "never"),
        (1 / 8, "low"),
        (1 / 3, "low"),
        (3 / 8, "middle"),
        (2 / 3, "middle"),
        (6 / 8, "high"),
        (1, "high"),
    ],
)
def test_a_rate_of_right_answers_has_its_bin(rate, expected):
    assert bin_of(rate) == expected


ABSTAINED = [True, True, False, False, False, False]
RIGHT = [False, False, False, True, True, True]
RATES = [0.0, 0.9, 0.0, 0.2, 0.9, 1.0]


def test_the_rate_and_the_accuracy_of_the_other_answers_are_given_for_each_bin():
    found = abstention_figures("PPO", ABSTAINED, RIGHT, RATES)
    values = {(one.group, one.measure): (one.value, one.count) for one in found}
    assert values == {
        (None, "rate"): (2 / 6, 6),
        (None, "accuracy_answering"): (3 / 4, 4),
        ("never", "rate"): (1 / 2, 2),
        ("never", "accuracy_answering"): (0, 1),
        ("low", "rate"): (0, 1),
        ("low", "accuracy_answering"): (1, 1),
        ("high", "rate"): (1 / 3, 3),
        ("high", "accuracy_answering"): (1, 2),
    }
    assert {one.part for one in found} == {"abstention"} and {one.policy for one in found} == {
        "PPO"
    }
    (rate,) = select(found, group=None, measure="rate")
    assert 0 < rate.low < rate.value < rate.high < 1


def test_without_right_answers_the_rate_alone_is_known():
    found = abstention_figures("SFT", ABSTAINED)
    assert [(one.measure, one.group, one.value) for one in found] == [("rate", None, 2 / 6)]
    assert [one.measure for one in abstention_figures("SFT", [True], [False])] == ["rate"]

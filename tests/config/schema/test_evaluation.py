"""The sections evaluation.tasks and evaluation.suites: invalid values and their messages."""

import pytest

from rlhf_cli.config.errors import UserError
from tests.support.configuration import composed
from tests.support.suites import suites


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shots=[]"], r"evaluation\.tasks\.shots=\[\] must be numbers of exemplars from 0 to 64"),
        (["shots=[-1]"], r"numbers of exemplars from 0 to 64, as in \[0, 3\]"),
        (["shots=[0,0]"], r"shots=\[0, 0\] has a number twice"),
        (["templates=none"], r"templates=none must be all or a number"),
        (["templates=0"], r"templates=0 must be all or a number"),
        (["limit=0"], r"limit=0 must be positive or null"),
        (["samples=0"], r"samples=0 must be positive"),
        (["rank=mean"], r"rank=mean is not one of sum, token, byte, prior"),
        (["samples=5", "temperature=0"], r"must be positive, or evaluation\.tasks\.samples=1"),
        (["temperature=-1"], r"temperature=-1(\.0)? must"),
    ],
)
def test_invalid_values_of_evaluation_tasks_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        composed(*(f"evaluation.tasks.{word}" for word in words))


@pytest.mark.parametrize("key", ["samples", "limit"])
def test_numbers_of_evaluation_suites_below_one_are_refused(key):
    with pytest.raises(UserError, match=rf"^{key}=0 must be positive"):
        suites(**{key: 0})


def test_templates_are_all_or_a_number():
    assert composed().evaluation.tasks.templates == "all"
    assert composed("evaluation.tasks.templates=5").evaluation.tasks.templates == "5"
    assert composed("evaluation.tasks.temperature=0").evaluation.tasks.temperature == 0

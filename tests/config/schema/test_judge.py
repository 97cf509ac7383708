"""Constraints of the section `judge`."""

import pytest

from rlhf_cli.config.errors import UserError
from tests.support.configuration import composed

SERVER = "judge.url='http://localhost:8000/v1'"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["judge.question='{prompt} {a}'"], r"judge\.question=.* must have the places"),
        (["judge.model=m", "judge.url=localhost"], r"judge\.url=localhost must begin with http"),
        ([SERVER], r"judge\.url=\S+ needs judge\.model"),
        (["judge.model=m", SERVER, "judge.chat=false"], r"judge\.chat=\S+ needs judge\.url=null"),
        (["judge.parallel=0"], r"judge\.parallel=0 must be positive"),
    ],
)
def test_impossible_values_are_refused(words, problem):
    with pytest.raises(UserError, match=problem):
        composed(*words)


def test_a_server_and_a_model_without_a_chat_template_are_possible():
    assert composed("judge.model=m", SERVER).judge.url == "http://localhost:8000/v1"
    assert not composed("judge.model=m", "judge.chat=false").judge.chat

"""The section rationales: invalid values and their messages."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Check
from tests.support.configuration import composed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shots=-1"], r"rationales\.shots=-1 must lie in \[0, 64\] \(exemplars\)"),
        (["samples=0"], r"samples=0 must be positive"),
        (["limit=0"], r"limit=0 must be positive or null"),
        (["max_tokens=0"], r"max_tokens=0 must be positive"),
        (["samples=5", "temperature=0"], r"must be positive, or rationales\.samples=1"),
        (["keep=first"], r"keep=first is not one of best, all"),
        (["checks=[answer,lenght]"], r"checks\[1\]=lenght is not one of answer, length"),
        (["checks=[answer,answer]"], r"checks=\[answer, answer\] has a check twice"),
        (["scorer=' '"], r"scorer=.* must be same, a folder or a hub id"),
    ],
)
def test_invalid_values_of_rationales_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        composed(*(f"rationales.{word}" for word in words))


def test_any_checks_are_accepted_in_any_order():
    found = composed("rationales.checks=[likelihood,answer]").rationales.checks
    assert found == [Check.likelihood, Check.answer]
    assert composed("rationales.checks=[]").rationales.checks == []
    assert composed("rationales.temperature=0", "rationales.samples=1").rationales.samples == 1

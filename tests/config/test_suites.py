"""Suites that are named, and the text classifiers that they need."""

import pytest

from rlhf_cli.config.suites import SUITES, classifiers, suite_files
from tests.support.configuration import composed
from tests.support.suites import suites


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_is_measured_once_its_file_is_named(suite):
    assert suite_files(suites(**{suite: "a.csv"})) == {suite: "a.csv"}


def test_no_suite_is_named_by_default():
    assert suite_files(composed().evaluation.suites) == {}


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (["crows_pairs"], []),
        (["toxicity"], ["toxicity_model"]),
        (["bias"], ["toxicity_model", "sentiment_model"]),
    ],
)
def test_a_classifier_is_used_only_by_suites_that_it_scores(named, expected):
    files = dict.fromkeys(named, "a.csv")
    found = classifiers(suites(toxicity_model="t", sentiment_model="s", **files))
    assert found == {key: key[0] for key in expected}
    assert classifiers(suites(**files)) == {}

"""Titles and names of parts and measures: known ones in words, others as they are called."""

import pytest

from rlhf_cli.report.figure_words import judge_words, label_of_measure, other_sections


def test_every_part_has_a_section_and_an_unknown_one_keeps_its_name():
    sections = other_sections(("win_rates", "suites", "brand_new"))
    assert [one.title for one in sections if "brand_new" in one.parts] == ["Brand new"]
    assert sum("suites" in one.parts for one in sections) == 1
    assert not [one for one in sections if "win_rates" in one.parts]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("value_gap", "Gap of the mean value"),
        ("toxicity/max", "Toxicity, most toxic continuation per prompt"),
        ("bias/mean_of_maxima", "Bias, mean of maxima"),
        ("ead/per_input", "Distinct phrases (EAD), per input"),
        ("some_thing", "Some thing"),
    ],
)
def test_measures_are_named_in_words(measure, expected):
    assert label_of_measure(measure) == expected


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        ("score", "the score that was optimised"),
        ("gold", "gold utility"),
        ("runs/other/rm", "runs/other/rm"),
        (None, "unknown judge"),
    ],
)
def test_judges_are_named_in_words(judge, expected):
    assert judge_words(judge) == expected

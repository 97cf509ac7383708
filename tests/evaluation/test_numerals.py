"""Numbers in texts are compared by value."""

from fractions import Fraction

import pytest

from rlhf_cli.evaluation.numerals import canonical, numbers_in, quantity


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,2,3", ["1", "2", "3"]),
        ("12 - 5 = 7", ["12", "5", "7"]),
        ("from -3 to (-2)", ["-3", "-2"]),
        ("A12 and 5kg, 7th", ["5", "7"]),
        ("on 2024-05-03", ["2024", "5", "3"]),
        ("1,234,567.89 and 1234,567", ["1234567.89", "1234", "567"]),
        ("a run of " + "9" * 5000, []),
        ("1e99999", ["1"]),
        ("1/0", ["1", "0"]),
    ],
)
def test_numbers_in_finds_the_numbers_of_a_text(text, found):
    assert [canonical(value) for value in numbers_in(text)] == found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(10), "10"),
        (Fraction("0.50"), "0.5"),
        (Fraction(1, 3), "1/3"),
        (Fraction(-1200), "-1200"),
        (Fraction(10**40), "1" + "0" * 40),
    ],
)
def test_canonical_writes_equal_numbers_the_same_way(value, text):
    assert canonical(value) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$1,000.00", (1000, "")),
        ("5 km/h.", (5, "km/h")),
        ("25%", (25, "%")),
        ("-3 °C", (-3, "°c")),
        ("3 men and a baby", None),
        ("1.2.3", None),
        ("ten", None),
    ],
)
def test_a_quantity_is_one_number_with_a_unit(text, found):
    assert quantity(text) == found

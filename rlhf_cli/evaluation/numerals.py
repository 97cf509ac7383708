"""Numbers in texts, by value: separators of thousands, currency, units and a trailing .0 do not count."""

import re
from decimal import Decimal
from fractions import Fraction

PLACES = 6  # decimals up to which a number is written as one; any other is written as a fraction
# A minus after a letter, a digit or a bracket is a hyphen or an operation. Runs of more digits than
# Python converts are no numbers.
NUMBER = re.compile(
    r"(?P<sign>(?<![\w).%])[-\u2212])?(?:[$€£]\s?)?(?<![^\W_])(?<!\d\.)"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,300}(?!\d))(?:\.\d{1,300})?(?:[eE][+-]?\d{1,2}(?!\w))?"
    r"|\.\d{1,300})"
    r"(?:/(?P<below>[1-9]\d{0,9})(?![\d/]))?"
)
UNIT = re.compile(r"\s*(?P<unit>%|°?[^\W\d_]*(?:/[^\W\d_]+)?)\W*")


def numbers_in(text: str) -> list[Fraction]:
    """Return the values of all numbers of a text, in order."""
    return [_value(found) for found in NUMBER.finditer(text)]


def quantity(text: str) -> tuple[Fraction, str] | None:
    """Return the value and the unit of a text that is one number with at most a unit, else None."""
    text = text.strip(" *`'\"")
    found = NUMBER.match(text)
    unit = UNIT.fullmatch(text, found.end()) if found else None
    return (_value(found), unit["unit"].lower()) if found and unit else None


def canonical(value: Fraction) -> str:
    """Return a number as text, the same for equal numbers: 10, 0.5, 1/3."""
    scaled = value * 10**PLACES
    if scaled.denominator == 1 and abs(scaled) < 10**24:
        return f"{Decimal(scaled.numerator).scaleb(-PLACES).normalize():f}"
    return str(value)


def _value(found: re.Match) -> Fraction:
    value = Fraction(found["digits"].replace(",", "")) / int(found["below"] or 1)
    return -value if found["sign"] else value

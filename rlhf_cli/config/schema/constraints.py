"""Constraints of a section's values, as `__post_init__` states them: one line each.

A section does not know where it stands in the configuration. Its keys are therefore relative here, and
`resolve` in config/compose.py adds the path of the section to the message.
"""

import re
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from types import NoneType
from typing import Any, get_args

from rlhf_cli.config.errors import UserError

INTERVAL = re.compile(r"(?P<opening>[\[(])(?P<low>\S+), (?P<high>\S+)(?P<closing>[\])])")
RELATIVE = re.compile(r"(?<=[\s(])\.(?=[a-z])")
PLAIN = re.compile(r"[\w.:-]+")
LONGEST_SHOWN = 60


class ConfigError(UserError):
    """A configuration that cannot be used; the message starts with the full key."""


class ConstraintError(ConfigError):
    """A value that its section refuses.

    text: what is allowed and what to do; a key of the same section is written with a leading dot, as in
    OmegaConf's interpolations.
    """

    def __init__(self, key: str, value: Any, text: str):
        self.key, self.value, self.text = key, value, text
        super().__init__(self.message(""))

    def message(self, section: str) -> str:
        """Return the message with full keys; section: the path with its dot at the end, or ""."""
        text = RELATIVE.sub(section, f" {self.text}")
        return f"{section}{self.key}={shown_value(self.value)}{text}"


def require(section: Any, key: str, holds: bool, text: str) -> None:
    """Raise ConstraintError for this key of the section unless `holds`."""
    if not holds:
        raise ConstraintError(key, getattr(section, key), text)


def positive(section: Any, *keys: str, unit: str = "") -> None:
    """Require values above 0."""
    _each(section, keys, lambda value: value > 0, "must be positive", unit)


def not_negative(section: Any, *keys: str, unit: str = "") -> None:
    """Require values of at least 0."""
    _each(section, keys, lambda value: value >= 0, "must be at least 0", unit)


def at_least(section: Any, least: int, *keys: str) -> None:
    """Require values of at least `least`."""
    _each(section, keys, lambda value: value >= least, f"must be at least {least}")


def at_most(section: Any, most: int, *keys: str, unit: str = "") -> None:
    """Require values of at most `most`."""
    _each(section, keys, lambda value: value <= most, f"must be at most {most}", unit)


def within(section: Any, interval: str, *keys: str, unit: str = "") -> None:
    """Require values in an interval such as "(0, 1]": a round bracket excludes its end."""
    found = INTERVAL.fullmatch(interval)
    assert found is not None, interval
    low, high = float(found["low"]), float(found["high"])

    def holds(value: float) -> bool:
        above = value >= low if found["opening"] == "[" else value > low
        return above and (value <= high if found["closing"] == "]" else value < high)

    _each(section, keys, holds, f"must lie in {interval}", unit)


def _each(
    section: Any, keys: tuple[str, ...], holds: Callable[[Any], bool], text: str, unit: str = ""
) -> None:
    """Require `holds` of the value of each key; null passes where the type of the field has it."""
    kinds = {field.name: field.type for field in fields(section)}
    for key in keys:
        value, nullable = getattr(section, key), NoneType in get_args(kinds[key])
        message = text + " or null" * nullable + f" ({unit})" * bool(unit)
        require(section, key, (nullable and value is None) or holds(value), message)


def shown_value(value: Any) -> str:
    """Return a value as it is written on the command line; a text that would need quotes has them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {shown_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(shown_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not PLAIN.fullmatch(value):
        return repr(value[:LONGEST_SHOWN])
    if isinstance(value, Enum):
        return value.name
    return "null" if value is None else str(value)

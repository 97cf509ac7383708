"""Checks that values have the shape of the schema: sections, lists, whole numbers.

They run before OmegaConf's own, whose messages do not name a remedy.
"""

import math
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from rlhf_cli.config.schema import ConfigError, Source
from rlhf_cli.config.schema.constraints import shown_value

LARGEST = 2**53  # whole numbers up to here are exact as floating-point numbers too


def conform(given: dict, schema: type, section: str = "") -> dict:
    """Return `given` with whole numbers written as 1e6 made whole; ConfigError names what is misshapen.

    Keys that the schema does not know are left to it, and so are interpolations.
    """
    hints = get_type_hints(schema)
    known = given.keys() & hints.keys()
    return given | {
        key: _fitted(given[key], hints[key], f"{section}{key}") for key in given if key in known
    }


def _fitted(value: Any, hint: Any, key: str) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] or [hint]
    kind = kinds[0] if get_origin(hint) not in (list, dict) else hint
    if isinstance(value, str) and value.startswith("${"):
        return value
    if value is None and NoneType in get_args(hint):
        return None
    if isinstance(kind, type) and is_dataclass(kind):
        return _section(value, kind, key)
    if get_origin(kind) is list:
        return _list(value, get_args(kind)[0], key)
    if get_origin(kind) is dict:
        return _dictionary(value, key)
    return _scalar(value, kind, key)


def _section(value: Any, kind: type, key: str) -> dict:
    if isinstance(value, dict):
        return conform(value, kind, f"{key}.")
    names = [field.name for field in fields(kind)]
    shown = "..." if isinstance(value, list | NoneType) else shown_value(value)
    raise ConfigError(
        f"{key} is a section, not a value: did you mean {key}.{_first_leaf(kind)}={shown}? "
        f"(it has {', '.join(names)})"
    )


def _first_leaf(kind: type) -> str:
    """Return the first key of a section, of a section in it where it begins with one."""
    first = fields(kind)[0]
    hint = get_type_hints(kind)[first.name]
    nested = isinstance(hint, type) and is_dataclass(hint)
    return f"{first.name}.{_first_leaf(hint)}" if nested else first.name


def _list(value: Any, kind: Any, key: str) -> list:
    if kind is Source:
        return _sources(value, key)
    if not isinstance(value, list):
        shown = "" if value is None else shown_value(value)
        raise ConfigError(f"{key}={shown_value(value)} is no list: write {key}=[{shown}]")
    return [_fitted(item, kind, f"{key}[{i}]") for i, item in enumerate(value)]


def _sources(value: Any, key: str) -> list:
    """Return a checked list of sources, each {path: ...}."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return [conform(item, Source, f"{key}[{i}].") for i, item in enumerate(value)]
    items = value if isinstance(value, list) else [value] if value is not None else []
    shown = [
        shown_value(item if isinstance(item, dict) else {"path": "..." if item is None else item})
        for item in items
    ]
    raise ConfigError(
        f"{key} is a list of sources, each with a path: write '{key}=[{', '.join(shown)}]'"
    )


def _dictionary(value: Any, key: str) -> dict:
    if isinstance(value, dict):
        return value
    raise ConfigError(
        f"{key}={shown_value(value)} is no dictionary: write '{key}={{name: value}}', or null"
    )


def _scalar(value: Any, kind: Any, key: str) -> Any:
    if kind is Any:
        return value
    if value is None:
        raise ConfigError(f"{key} may not be null")
    if isinstance(value, list | dict):
        raise ConfigError(f"{key}={shown_value(value)} is not {expected(kind)}")
    if kind in (int, float) and not isinstance(value, bool):
        return _number(value, kind, key)
    return value


def _number(value: Any, kind: type, key: str) -> Any:
    """Return a finite number; a whole one where the type is int, also when written as 1e6."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value} is not a finite number")
    if kind is not int or not isinstance(value, int | float):
        return value
    if abs(value) > LARGEST:
        raise ConfigError(f"{key}={value} is too large: at most {LARGEST}")
    return int(value) if value == int(value) else value


def expected(kind: Any) -> str:
    """Return a description of the values that a key of this type takes."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(item.name for item in kind)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(kind, "a value")

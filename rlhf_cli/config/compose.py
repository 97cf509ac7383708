"""From YAML and overrides to `Config`: what Hydra has composed is merged into the schema and checked.

Unknown keys are refused. So are values that do not have the schema's shape (sections, lists, whole
numbers), before OmegaConf sees them, whose messages name no remedy. A configuration that was written
as JSON is read back by the same function.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf_cli.config.error_messages import explain
from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.config.schema import ConfigError, Source
from rlhf_cli.config.schema.constraints import ConstraintError, shown_value
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.config.suggestions import OTHER_METHODS, STAGE_WORDS

LARGEST = 2**53  # whole numbers up to here are exact as floating-point numbers too


def resolve(composed: DictConfig) -> Config:
    """Return the composed values as a `Config`; ConfigError names the first key that is refused."""
    given = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(given, dict)
    return _checked(given)


def _checked(given: dict[Any, Any]) -> Config:
    """Return plain values, which may have interpolations, as a `Config`."""
    given = given | {"stage": stage_list(given.get("stage"))}
    if isinstance(parents := given.get("parents"), dict) and isinstance(parents.get("rm"), str):
        given["parents"] = parents | {"rm": [parents["rm"]]}
    try:
        conforming = OmegaConf.create(conform(given, Config))
        # Both are new and used once, so that nothing needs a copy.
        merged = OmegaConf.unsafe_merge(OmegaConf.structured(Config), conforming)
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    if missing := sorted(_missing(values)):
        raise ConfigError(f"{missing[0]} has no value: set {missing[0]}=...")
    return _built(Config, values)


def _missing(value: Any, key: str = "") -> Iterator[str]:
    """Yield the keys without a value; key: the path of `value`."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _missing(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _missing(item, f"{key}[{i}]")
    elif value == MISSING:
        yield key


def stage_list(given: Any) -> list[str]:
    """Return the chosen stages in pipeline order, each once; given: all, one name, or a list."""
    names = list(STAGES)
    asked = given if isinstance(given, list | tuple) else [] if given in (None, "") else [given]
    for name in asked:
        if name not in ("all", *names):
            raise ConfigError(_no_stage(str(name), names))
    if not asked:
        raise ConfigError(f"stage is empty: choose all, or some of {', '.join(names)}")
    return [
        name for name, spec in STAGES.items() if name in asked or (spec.default and "all" in asked)
    ]


def _no_stage(name: str, names: list[str]) -> str:
    """Return the error for an unknown stage; another method is not taken for a misspelt stage."""
    word = name.lower().replace("-", "_")
    if word in OTHER_METHODS:
        return f"there is no stage {name}: stages are all, {', '.join(names)}"
    hint = STAGE_WORDS.get(word) or nearest(word, ["all", *names])
    return (
        f"stage={name} is not one of all, {', '.join(names)}{did_you_mean([hint] if hint else [])}"
    )


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
    if isinstance(kind, type) and issubclass(kind, Source):
        return _sources(value, kind, key)
    if not isinstance(value, list):
        shown = "" if value is None else shown_value(value)
        raise ConfigError(f"{key}={shown_value(value)} is no list: write {key}=[{shown}]")
    return [_fitted(item, kind, f"{key}[{i}]") for i, item in enumerate(value)]


def _sources(value: Any, kind: type, key: str) -> list:
    """Return a checked list of sources, each {path: ...}."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return [conform(item, kind, f"{key}[{i}].") for i, item in enumerate(value)]
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


def _built(kind: Any, values: Any, section: str = "") -> Any:
    """Return the dataclass of a section; section: its path, with a dot at the end."""
    hints, items = get_type_hints(kind), dict(values)
    for key, hint in hints.items():
        element = get_args(hint)[0] if get_origin(hint) is list else None
        if is_dataclass(hint):
            items[key] = _built(hint, items[key], f"{section}{key}.")
        elif is_dataclass(element):
            listed = enumerate(items[key])
            items[key] = [_built(element, item, f"{section}{key}[{i}].") for i, item in listed]
    try:
        return kind(**items)
    except ConstraintError as error:
        raise ConfigError(error.message(section)) from error


def freeze(config: Config) -> dict[str, Any]:
    """Return the configuration as plain JSON values; `thaw` is the inverse."""
    return _plain(asdict(config))


def thaw(frozen: Mapping[str, Any]) -> Config:
    """Return the `Config` of JSON values, checked like any other."""
    return _checked(dict(frozen))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value

"""Compose -> merge -> object: the one strict door from YAML and overrides to `Config`.

Hydra composes (see cli.py); here the result meets the schema. Nothing unknown passes, and a
configuration that left as JSON comes back through the same door.
"""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf_cli.config.explain import explain
from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.config.schema import Config, ConfigError, Stage
from rlhf_cli.config.shape import conform
from rlhf_cli.config.suggestions import OTHER_METHODS, STAGE_WORDS

PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """The shipped conf/: beside the package in a checkout, inside it when from a wheel."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    if (PACKAGE / "conf" / "config.yaml").is_file():
        return PACKAGE / "conf"
    raise ConfigError(
        f"this installation has no conf/ folder ({PACKAGE / 'conf'}): install it again"
    )


def resolve(composed: DictConfig) -> Config:
    """The composed values as a `Config`, every law checked; else one ConfigError naming the key."""
    given = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(given, dict)
    given["stage"] = stage_list(given.get("stage"))
    try:
        given = OmegaConf.create(conform(given, Config))
        merged = OmegaConf.merge(OmegaConf.structured(Config), given)
        return _to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error


def _to_object(merged) -> Config:
    try:
        config = OmegaConf.to_object(merged)
    except ConfigError as error:
        raise ConfigError(_with_full_key(merged, str(error))) from error
    assert isinstance(config, Config)
    return config


def _with_full_key(merged, message: str) -> str:
    """A section cannot know its own place: put the full key before a law broken inside it."""
    for path, node in _sections(merged):
        try:
            OmegaConf.to_object(node)
        except ConfigError as error:
            return _prefixed(path, str(error))
    return message


def _prefixed(path: str, message: str) -> str:
    top, _, rest = message.partition(".")
    if not path or message.startswith((f"{path}.", f"{path.split('.')[0]}.")):
        return message
    if rest and top == _section_word(path):
        return f"{path}.{rest}"
    return f"{path}: {message}"


def _section_word(path: str) -> str:
    """ "ppo.value_optim" calls itself "optim" in its laws."""
    return path.rpartition(".")[2].rpartition("_")[2]


def _sections(node, path: str = ""):
    """(path, section) of every structured section, innermost first."""
    is_list = OmegaConf.is_list(node)
    for key in range(len(node)) if is_list else list(node.keys()):
        child = node._get_node(key)
        if OmegaConf.is_config(child) and not child._is_none():
            yield from _sections(
                child, f"{path}[{key}]" if is_list else f"{path}.{key}".lstrip(".")
            )
    if is_dataclass(OmegaConf.get_type(node) or int):
        yield path, node


def stage_list(given: Any) -> list[str]:
    """all | one | a list -> the chosen stages in pipeline order, each once."""
    names = [stage.name for stage in Stage]
    asked = given if isinstance(given, list | tuple) else [] if given in (None, "") else [given]
    for name in asked:
        if name not in ("all", *names):
            raise ConfigError(_no_stage(str(name), names))
    if not asked:
        raise ConfigError(f"stage is empty: choose all, or some of {', '.join(names)}")
    return [name for name in names if name in asked or "all" in asked]


def _no_stage(name: str, names: list[str]) -> str:
    """Another method is no misspelt stage."""
    word = name.lower().replace("-", "_")
    if word in OTHER_METHODS:
        return f"there is no stage {name}: stages are all, {', '.join(names)}"
    hint = STAGE_WORDS.get(word) or nearest(word, ["all", *names])
    return (
        f"stage={name} is not one of all, {', '.join(names)}{did_you_mean([hint] if hint else [])}"
    )


def freeze(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON values; `thaw` is its inverse."""
    return _plain(asdict(config))


def thaw(frozen: Mapping[str, Any]) -> Config:
    """A `Config` from JSON values, through the same door."""
    return resolve(OmegaConf.create(dict(frozen)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value

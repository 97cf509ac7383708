"""From YAML and overrides to `Config`: what Hydra has composed is merged into the schema and checked.

Unknown keys are refused. A configuration that was written as JSON is read back by the same function.
"""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf_cli.config.error_messages import explain
from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.schema.constraints import ConstraintError
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.shape import conform
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.config.suggestions import OTHER_METHODS, STAGE_WORDS

PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """Return the shipped conf/: beside the package in a checkout, inside it when from a wheel."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    if (PACKAGE / "conf" / "config.yaml").is_file():
        return PACKAGE / "conf"
    raise ConfigError(
        f"this installation has no conf/ folder ({PACKAGE / 'conf'}): install it again"
    )


def resolve(composed: DictConfig) -> Config:
    """Return the composed values as a `Config`; ConfigError names the first key that is refused."""
    given = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(given, dict)
    given["stage"] = stage_list(given.get("stage"))
    try:
        given = OmegaConf.create(conform(given, Config))
        merged = OmegaConf.merge(OmegaConf.structured(Config), given)
        missing = sorted(OmegaConf.missing_keys(merged))
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    if missing:
        raise ConfigError(f"{missing[0]} has no value: set {missing[0]}=...")
    return _built(Config, values)


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


def freeze(config: Config) -> dict[str, Any]:
    """Return the configuration as plain JSON values; `thaw` is the inverse."""
    return _plain(asdict(config))


def thaw(frozen: Mapping[str, Any]) -> Config:
    """Return the `Config` of JSON values, checked like any other."""
    return resolve(OmegaConf.create(dict(frozen)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value

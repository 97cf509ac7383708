"""Configuration files of the user for Hydra: the folder of --config-dir, and single experiment files.

Such files set our own keys. Through Hydra's keys they could run code (callbacks, log handlers,
`_target_`), so of those they can set the launcher and the sweeper alone.
"""

import re
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from rlhf_cli.config.error_messages import unknown_key
from rlhf_cli.config.keys import GROUPS, schema_keys
from rlhf_cli.config.schema import ConfigError

OURS_OF_HYDRA = ("launcher", "sweeper")
MADE_WHILE_COMPOSING = ("job", "overrides", "runtime", "mode")  # Hydra's notes of the request
FREE = ("runtime.deepspeed",)  # its keys are DeepSpeed's
GLOBAL = "_global_"


class OwnFolder(ConfigSource):
    """A conf folder of the user. Its config.yaml does not replace ours, which all others complete."""

    @staticmethod
    def scheme() -> str:
        return "own"

    def place(self, config_path: str) -> Path:
        """Return the path that the file of that name would have."""
        return Path(self.path) / self._normalize_file_name(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        place = self.place(config_path)
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found: {place}")
        text = place.read_text(encoding="utf-8")
        header = ConfigSource._get_header_dict(text[:512])
        group = config_path.rpartition("/")[0].partition("/")[0]
        if group == "experiment" and header.get("package") is None:
            header["package"] = GLOBAL
        with place.open(encoding="utf-8") as file:  # an open file: its name stands in errors
            config = OmegaConf.load(file)
        _require_values(config, place, group, header.get("package"))
        return ConfigResult(
            config=config,
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=header,
        )

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return (Path(self.path) / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self._normalize_file_name(config_path) != "config.yaml" and (
            self.place(config_path).is_file()
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for path in (Path(self.path) / config_path).iterdir():
            self._list_add_result(found, f"{config_path}/{path.name}", path.name, results_filter)
        return sorted(set(found))


class ExperimentFile(OwnFolder):
    """One YAML file anywhere, as the experiment of its own name."""

    @staticmethod
    def scheme() -> str:
        return "experiment-file"

    def place(self, config_path: str) -> Path:
        return Path(self.path)

    def available(self) -> bool:
        return Path(self.path).is_file()

    def is_group(self, config_path: str) -> bool:
        return config_path == "experiment"

    def is_config(self, config_path: str) -> bool:
        named = f"experiment/{choice_of(Path(self.path))}"
        return config_path.removesuffix(".yaml") == named

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return [choice_of(Path(self.path))] if config_path == "experiment" else []


def choice_of(path: Path) -> str:
    """Return the name of the file as a preset of its group."""
    return re.sub(r"[^\w-]", "_", path.stem)


def register() -> None:
    """Register both with Hydra; a second call changes nothing."""
    for source in (OwnFolder, ExperimentFile):
        Plugins.instance().register(source)


def _require_values(config: Any, place: Path, group: str, package: str | None) -> None:
    """Refuse a file whose keys are not ours, by its name and the key.

    group: its folder, "" for a whole configuration. A file that goes elsewhere (@package) or
    belongs to a group of the user's own is checked with all that is composed.
    """
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{place}: a list; expected keys with values, as in conf/")
    if package is not None and re.match(r"(_global_\.)?hydra\b", package):
        raise ConfigError(f"{place}: @package {package}: its keys belong to Hydra; leave it out")
    if package not in (None, GLOBAL) or group not in ("", *GROUPS):
        return
    given = OmegaConf.to_container(config, resolve=False)
    assert isinstance(given, dict)
    given.pop("defaults", None)
    known = {*schema_keys(), *GROUPS}
    prefix = "" if package == GLOBAL or not group else f"{group}."
    for key in _keys(given, prefix, known):
        _require_known(key, known, place)


def _keys(tree: dict, prefix: str, known: set[str]) -> list[str]:
    """Return the dotted keys of sections and values, as deep as the schema goes."""
    found: list[str] = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        found.append(key)
        if isinstance(value, dict) and key in known and key not in FREE:
            found += _keys(value, f"{key}.", known)
        elif isinstance(value, dict) and key == "hydra":
            found += [f"hydra.{part}" for part in value]
    return found


def _require_known(key: str, known: set[str], place: Path) -> None:
    if key in known or key == "hydra" or key in (f"hydra.{part}" for part in OURS_OF_HYDRA):
        return
    if key.startswith("hydra."):
        raise ConfigError(f"{place}: {hydras_own(key)}")
    raise ConfigError(f"{place}: {unknown_key(key)}")


def hydras_own(key: str) -> str:
    """Return why one of Hydra's settings is refused."""
    where = "; a run is written to <runs_dir>/<name>" if "dir" in key else ""
    return f"{key} is Hydra's own: only hydra.launcher and hydra.sweeper can be set{where}"


def require_own_settings(composed: DictConfig, pristine: DictConfig) -> None:
    """Refuse Hydra's settings beyond launcher and sweeper that files have changed in any way.

    pristine: Hydra's settings without any file of the user.
    """
    given, usual = (
        OmegaConf.to_container(one.hydra, resolve=False) for one in (composed, pristine)
    )
    assert isinstance(given, dict) and isinstance(usual, dict)
    for key, value in given.items():
        if key not in (*OURS_OF_HYDRA, *MADE_WHILE_COMPOSING) and value != usual.get(key):
            raise ConfigError(hydras_own(f"hydra.{key}"))
    for key in ("env_set", "env_copy", "chdir"):
        if given["job"].get(key) != usual["job"].get(key):
            raise ConfigError(hydras_own(f"hydra.job.{key}"))
    for part in OURS_OF_HYDRA:
        plugin = OmegaConf.to_container(composed.hydra[part], resolve=True)
        for target in set(_targets(plugin)) - set(_registered_targets(part)):
            raise ConfigError(
                f"hydra.{part}: _target_ {target} is none of an installed plugin's: leave it out"
            )


def _targets(tree: Any) -> list[str]:
    """Return all values of `_target_`, at any depth."""
    if isinstance(tree, dict):
        own = [str(tree["_target_"])] if "_target_" in tree else []
        return own + [target for value in tree.values() for target in _targets(value)]
    return [t for value in tree for t in _targets(value)] if isinstance(tree, list) else []


def _registered_targets(part: str) -> list[str]:
    """Return the classes that the installed plugins themselves name."""
    found: list[str] = []
    pending = [ConfigStore.instance().repo.get("hydra", {}).get(part, {})]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            pending += one.values()
        else:
            found += _targets(OmegaConf.to_container(one.node, resolve=False))
    return found

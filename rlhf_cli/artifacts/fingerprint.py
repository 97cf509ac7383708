"""What a stage's result depends on, as hashes: configuration, data, parents, code version."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.manifest import StageManifest, canonical_hash
from rlhf_cli.artifacts.store import file_hash
from rlhf_cli.config.keys import flatten

SMALL = 16 << 20


@dataclass(slots=True, kw_only=True)
class Fingerprint:
    """config: the stage's own flat keys. data: role -> source -> hash. parents: role -> digest."""

    config: dict[str, Any]
    data: dict[str, dict[str, str]]
    parents: dict[str, str]
    version: str

    def config_hash(self) -> str:
        return canonical_hash(self.config)

    def equals(self, manifest: StageManifest) -> bool:
        """True when the finished stage was made of exactly this."""
        return (
            manifest.config_hash == self.config_hash()
            and manifest.data == self.data
            and manifest.parents == self.parents
            and manifest.version == self.version
        )

    def changes(self, manifest: StageManifest, folder: Path) -> list[str]:
        """Why the finished stage in `folder` is not this one, most telling reason first."""
        if manifest.config_hash == self.config_hash():
            return self._other_changes(manifest)
        stored = _stored_config(folder, self.config)
        return _each_once(_config_changes(stored, self.config), self._other_changes(manifest))

    def since(self, earlier: "Fingerprint") -> list[str]:
        """Why an interrupted attempt made of `earlier` is not this one."""
        if earlier.config_hash() == self.config_hash():
            return self._other_changes(earlier)
        return _each_once(
            _config_changes(earlier.config, self.config), self._other_changes(earlier)
        )

    def _other_changes(self, old: "StageManifest | Fingerprint") -> list[str]:
        found = [f"{_role(r)} changed" for r in _differing(old.parents, self.parents)]
        found += [f"data.{role} changed" for role in _differing(old.data, self.data)]
        if old.version != self.version:
            found.append(f"rlhf changed {old.version} -> {self.version}")
        return found


def _role(role: str) -> str:
    return f"model {role}" if role in ("base", "reward_model") else f"parent {role}"


def _differing(old: dict, new: dict) -> list[str]:
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def _stored_config(folder: Path, keys: Iterable[str]) -> dict[str, Any]:
    stored = flatten(json.loads((folder / "config.json").read_text()))
    return {key: stored.get(key) for key in keys}


def _each_once(config: list[str], others: list[str]) -> list[str]:
    """A renamed source is a change of configuration and of data: it is told once."""
    return config + [c for c in others if not any(known.startswith(c) for known in config)]


def _config_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [_change(key, old.get(key), new.get(key)) for key in _differing(old, new)] or [
        "the configuration changed"
    ]


def _change(key: str, old: Any, new: Any) -> str:
    """ "sft.epochs changed 1 -> 2"; of a list of sources what differs in them."""
    if not _are_sources(old) or not _are_sources(new):
        return f"{key} changed {_show(old)} -> {_show(new)}"
    if len(old) != len(new):
        return f"{key} changed from {len(old)} to {len(new)} sources"
    inside = [
        f"{name} {_show(before.get(name))} -> {_show(after.get(name))}"
        for before, after in zip(old, new, strict=True)
        for name in _differing(before, after)
    ]
    return f"{key} changed: {', '.join(inside)}"


def _are_sources(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False).strip('"')
    return text if len(text) <= 40 else f"{text[:37]}..."


def model_hash(path: str, revision: str | None) -> str:
    """Identity of a model: contents of a local folder (big files by size and time), else hub id."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return f"hub:{path}@{revision or 'main'}"
    return canonical_hash({p.name: _identity(p) for p in sorted(folder.iterdir()) if p.is_file()})


def _identity(path: Path) -> str:
    stat = path.stat()
    return file_hash(path) if stat.st_size <= SMALL else f"{stat.st_size}:{stat.st_mtime_ns}"

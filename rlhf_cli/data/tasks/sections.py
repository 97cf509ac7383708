"""A task file as data alone: its keys are known, its values of the right kind, or one line explains why.

In YAML a key twice is refused, and promptsource's tags are read as mappings.
"""

from pathlib import Path
from typing import Any

import yaml

from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.data.records import DataError


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.value[place][0].start_mark
                )
        return super().construct_mapping(node, deep)


def _mapping(loader: _Loader, suffix: str, node: yaml.MappingNode) -> dict:
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!Template", _mapping)


def load_yaml(path: Path) -> Any:
    """Return what a YAML file holds; DataError with file and line where it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        raise DataError(f"{path}{place}: {why}; see the YAML around this line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


class Section:
    """A mapping of a task file whose keys and kinds are checked; `where` begins every message."""

    def __init__(self, where: str, content: Any, known: tuple[str, ...]):
        if not isinstance(content, dict):
            raise DataError(f"{where}: found {kind_of(content)}, expected keys: {', '.join(known)}")
        for key in content:
            if key not in known:
                meant = nearest(str(key), known)
                tail = did_you_mean([meant]) if meant else f"; the keys: {', '.join(known)}"
                raise DataError(f"{where}: unknown key {key!r}{tail}")
        self.where, self.content = where, content

    def text(self, key: str, default: str | None = None, *, needed: bool = False) -> str | None:
        value = self.content.get(key, default)
        if value is None and not needed:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            raise self.wrong(key, value, "a text")
        return str(value)

    def flag(self, key: str, default: bool | None) -> Any:
        value = self.content.get(key, default)
        if value is not default and not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.content.get(key)
        value = [] if value is None else value
        for item in value if isinstance(value, list) else [None]:
            if isinstance(item, bool):
                raise DataError(
                    f"{self.where}: {key} has {str(item).lower()}: write a word such as yes or no "
                    "in quotes"
                )
            if not isinstance(item, str | int | float):
                raise self.wrong(key, value, "a list of texts")
        return tuple(map(str, value))

    def wrong(self, key: str, value: Any, wanted: str) -> DataError:
        found = "is missing" if key not in self.content else f"is {kind_of(value)}"
        return DataError(f"{self.where}: {key} {found}; it must be {wanted}")


def kind_of(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", bool: str(value).lower(), type(None): "empty"}
    return kinds.get(type(value), repr(value))

"""A mapping of a task file: its keys are known, its values of the right kind, or one line explains why."""

from typing import Any

from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.data.records import DataError


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

"""`rlhf config`: the checked configuration as YAML, each value with the comment conf/ gives it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.text import Text

from rlhf_cli.config.command_line import choices
from rlhf_cli.config.keys import conf_dir, did_you_mean, nearest_keys, schema_keys
from rlhf_cli.config.overrides import VALUED, YAML
from rlhf_cli.config.schema import ConfigError
from rlhf_cli.telemetry.console import console

INHERITED = re.compile(r"^ *- (?P<name>(?!_self_)[\w.]+)\s*(#.*)?$")
ENTRY = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value>[^#]*?)(?:\s+#\s?(?P<comment>.*))?$")
COMMENT_COLUMN = 44
FREE = "runtime.deepspeed."  # the keys below are DeepSpeed's


def split_sections(words: list[str]) -> tuple[list[str], list[str]]:
    """Return sections and overrides: ("sft", "seed=2") -> ["sft"], ["seed=2"]."""
    sections: list[str] = []
    rest: list[str] = []
    for word, before in zip(words, ["", *words], strict=False):
        plain = re.fullmatch(r"[\w.]+", word) and before not in VALUED and not word.endswith(YAML)
        (sections if plain else rest).append(word)
    for section in sections:
        if section not in schema_keys() and not section.startswith(FREE):
            known = ", ".join(key for key in schema_keys() if "." not in key)
            tail = did_you_mean(nearest_keys(section)) or f": the sections are {known}"
            raise ConfigError(f"no section {section!r}{tail}")
    return sections, rest


def print_config(frozen: dict[str, Any], sections: list[str]) -> None:
    """Print a configuration as plain values, all of it or the named sections."""
    comments = all_comments(conf_dir(), frozen, choices())
    for key, indent, text in _lines(frozen):
        if not sections or any(_inside(key, section) for section in sections):
            console().print(_commented("  " * indent + text, comments.get(key, "")), soft_wrap=True)


def _inside(key: str, section: str) -> bool:
    """Return whether a key is the section, inside it, or a heading above it."""
    return (key == section or key.startswith(f"{section}.")) or section.startswith(f"{key}.")


def _lines(
    tree: dict[str, Any], prefix: str = "", indent: int = 0
) -> Iterator[tuple[str, int, str]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield key, indent, f"{name}:"
            yield from _lines(value, f"{key}.", indent + 1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield key, indent, f"{name}:"
            yield from ((key, indent + 1, f"- {flow(item)}") for item in value)
        else:
            yield key, indent, f"{name}: {flow(value)}"


def flow(value: Any) -> str:
    """Return a value as YAML on one line; entries with the default are omitted from a source."""
    if isinstance(value, dict):
        entries = {k: v for k, v in value.items() if v not in (None, False, {}, "auto")}
        return "{" + ", ".join(f"{k}: {flow(v)}" for k, v in entries.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    needs_quotes = isinstance(value, str) and (not value or re.search(r"[:#\[\]{},\n]", value))
    return json.dumps(value, ensure_ascii=False) if needs_quotes else str(value)


def _commented(text: str, comment: str) -> Text:
    name, colon, value = text.partition(":")
    shown = Text.assemble((name, "cyan"), colon, value)
    if comment:
        shown.append(" " * max(2, COMMENT_COLUMN - len(text)) + f"# {comment}", style="dim")
    return shown


def all_comments(
    conf: Path, frozen: dict[str, Any], chosen: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return {key: comment} of config.yaml and of each group's files, whose keys belong to the group.

    chosen: group -> file; where two files explain one key, the one that was chosen does.
    """
    found = comments_of(conf / "config.yaml")
    for group in ("model", "data", "runtime"):
        paths = sorted(
            (conf / group).glob("*.yaml"),
            key=lambda path, group=group: (path.stem != chosen.get(group), *_rank(path)),
        )
        for path in paths:
            for key, comment in comments_of(path).items():
                if key.split(".")[0] in frozen[group]:
                    found.setdefault(f"{group}.{key}", comment)
    return found


def _rank(path: Path) -> tuple[bool, str]:
    """Return the sort key that puts the most general file first."""
    return path.stem not in ("generic", "auto"), path.stem


def comments_of(path: Path) -> dict[str, str]:
    """Return {dotted key: trailing comment} of a YAML file that is indented by two spaces.

    What a file inherits by its defaults list is explained there, but for what it explains itself.
    """
    found: dict[str, str] = {}
    stack: list[str] = []
    for text in path.read_text().splitlines():
        if stack[:1] == ["defaults"] and (parent := INHERITED.match(text)):
            found |= comments_of(path.with_name(f"{parent['name']}.yaml"))
        elif entry := ENTRY.match(text):
            stack = [*stack[: len(entry["indent"]) // 2], entry["key"]]
            if entry["comment"]:
                found[".".join(stack)] = entry["comment"]
    return found

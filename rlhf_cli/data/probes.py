"""Probes of a reward model, read from YAML: pairs of answers of which one is plainly better, by kind."""

from pathlib import Path
from typing import Any

from rlhf_cli.data.records import Comparison, DataError, Message, Origin
from rlhf_cli.data.tasks.sections import Section, kind_of, load_yaml

KEYS = ("prompt", "better", "worse")


def read_probes(path: Path) -> list[Comparison]:
    """Return a comparison per probe, the better answer first; its kind is its subset.

    The file has a list of {prompt, better, worse} under every kind. DataError with the file, the entry and
    the remedy for all else.
    """
    content = load_yaml(path)
    if not isinstance(content, dict) or not content:
        raise DataError(
            f"{path}: found {kind_of(content)}, expected kinds, each with a list of "
            f"{{{', '.join(KEYS)}}}"
        )
    found: list[Comparison] = []
    for kind, entries in content.items():
        if not isinstance(entries, list) or not entries:
            seen = "empty" if entries == [] else kind_of(entries)
            raise DataError(f"{path}: {kind} is {seen}; it must be a list of {{{', '.join(KEYS)}}}")
        for number, entry in enumerate(entries, start=1):
            found.append(_probe(path, str(kind), number, entry, len(found)))
    return found


def _probe(path: Path, kind: str, number: int, entry: Any, row: int) -> Comparison:
    section = Section(f"{path}: {kind}, entry {number}", entry, KEYS)
    prompt, better, worse = (_text(section, key) for key in KEYS)
    if better == worse:
        raise DataError(f"{section.where}: better and worse are the same text; write two answers")
    return Comparison(
        prompt=(Message("user", prompt),),
        responses=(better, worse),
        better=((0, 1),),
        ties=(),
        origin=Origin(str(path), row),
        meta={"subset": kind},
    )


def _text(section: Section, key: str) -> str:
    text = (section.text(key, needed=True) or "").strip()
    if not text:
        raise section.wrong(key, section.content[key], "a text")
    return text

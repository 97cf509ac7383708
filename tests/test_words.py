"""Retired words stay retired.

Searched: names, docstrings and messages of the package, conf/, the headings of docs/, and the test
names, docstrings and comments of tests/ and benchmarks/.

One word has one meaning here, and it is the field's (docs/architecture.md has the glossary).
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlhf_cli"

# In prose (docstrings, comments, messages): each with what to write instead.
PHRASES = {
    "leash": "KL penalty",
    "anew": "from scratch, starting over",
    "whole checkpoint": "complete checkpoint",
    "ends by itself": "ends with EOS",
    "end by themselves": "end with EOS",
    "by itself": "alone",
    "what was gained": "evaluation",
    "side by side, each": "compare",
    **dict.fromkeys(("tell", "tells", "told"), "report, print, return"),
    **dict.fromkeys(("say", "says", "said"), "state, mean, decide"),
    **dict.fromkeys(("lies in", "lies under", "lies beside", "lies inside"), "is in, below"),
    **dict.fromkeys(("go on", "goes on", "went on", "going on"), "resume, continue"),
    **dict.fromkeys(("mend", "mends", "mended"), "repair, fix"),
    **dict.fromkeys(("whoever", "somebody", "nobody"), "the process, the user, none"),
    **dict.fromkeys(("one answer a", "one response a", "one process a", "one object a"), "per"),
    **dict.fromkeys(("one row a", "one line a", "a row a", "a line a", "one label a"), "per"),
}
# As names of functions, classes, arguments and variables, whole or as one of their words.
NAMES = {
    "told", "said", "tell", "say", "know", "hear", "ask_for", "lie", "rest_of", "mend", "anew",
    "foreign", "doing", "lap", "go_on", "gather_records", "setting", "crew", "fleet", "verdict_of",
    "leash", "eyeful", "players", "guards", "goes_on", "given_up", "judging", "showing",
}  # fmt: skip
# As words of a test's name.
TEST_NAMES = {
    "who", "whom", "whoever", "nobody", "somebody", "stranger", "impostor", "twin", "anew", "quietly",
    "say", "says", "said", "tell", "tells", "told", "know", "knows", "believes", "heeds", "lies",
}  # fmt: skip
RIGHT = ("lies in [", "must lie in", "must lie between")  # a number and its interval
ADMITTED = ("say|tell|know",)  # words of answers that abstain, which a pattern recognizes


def modules() -> list[Path]:
    """Return the modules of the package, without the embedded task, whose people do say things."""
    task = ("world", "tiny_world")
    found = [p for p in PACKAGE.rglob("*.py") if not set(p.relative_to(PACKAGE).parts) & {*task}]
    return sorted(found)


def checks() -> list[Path]:
    """Return the modules of tests/ and benchmarks/ but this one, which quotes retired words."""
    found = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    found += (ROOT / "benchmarks").glob("*/*.py")  # deeper: installed peers
    return sorted(path for path in found if path != Path(__file__))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def names_in(path: Path) -> set[str]:
    """Return the names that a module defines: functions, classes, arguments, variables."""
    found = set()
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def comments_and_docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, text) of each."""
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            yield node.body[0].lineno, ast.get_docstring(node, clean=False) or ""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def names_of_tests(path: Path) -> list[str]:
    return re.findall(r"def (test_\w+)", text_of(path))


def retired(text: str) -> list[str]:
    """Return the retired phrases in a text."""
    text = text.lower()
    for phrase in (*RIGHT, *ADMITTED):
        text = text.replace(phrase, "")
    found = [phrase for phrase in PHRASES if phrase in text]
    return [phrase for phrase in found if re.search(rf"\b{phrase}\b", text)]


def prose() -> Iterator[tuple[str, int, str]]:
    """Yield (file, number of the first line, text) of all that is searched for phrases."""
    presets = sorted((ROOT / "conf").rglob("*.yaml"))
    presets = [path for path in presets if "tiny_world" not in path.parts]  # its people say things
    for path in [*modules(), *presets]:
        yield str(path.relative_to(ROOT)), 1, text_of(path)
    for path in sorted((ROOT / "docs").rglob("*.md")):
        for number, line in enumerate(text_of(path).splitlines(), start=1):
            if line.startswith("#"):
                yield str(path.relative_to(ROOT)), number, line
    for path in checks():
        if retired(text_of(path)):
            for number, text in comments_and_docstrings(path):
                yield str(path.relative_to(ROOT)), number, text


def test_no_retired_phrase():
    found = [
        f"{name}:{number}: {line.strip()!r}: {PHRASES[phrase]}"
        for name, first, text in prose()
        if retired(text)
        for number, line in enumerate(text.splitlines(), start=first)
        for phrase in retired(line)
    ]
    assert not found, "\n".join(found)


def test_no_retired_name():
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules()
        if NAMES & set(re.findall(r"[a-z]+(?:_[a-z]+)*", text_of(path)))
        for name in sorted(names_in(path))
        if name.strip("_").lower() in NAMES
    ]
    assert not found, "\n".join(found)


def test_no_retired_word_in_the_name_of_a_test():
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in checks()
        for name in names_of_tests(path)
        if TEST_NAMES & set(name.split("_"))
    ]
    assert not found, "\n".join(found)


def test_names_docstrings_and_comments_of_tests_are_searched(tmp_path):
    path = tmp_path / "test_sample.py"
    path.write_text('def test_who_waits():\n    """It is told."""\n    x = "said"  # goes on\n')
    assert names_of_tests(path) == ["test_who_waits"]
    assert list(comments_and_docstrings(path)) == [(2, "It is told."), (3, "# goes on")]


@pytest.mark.parametrize(
    "line",
    ["on a leash", "it starts anew", "ends by itself", "one answer a prompt", "it lies in X"],
)
def test_a_retired_phrase_is_noticed(line):
    assert retired(line)


@pytest.mark.parametrize("line", ["u lies in [0, 1)", "must lie between 0 and 1", "a whole number"])
def test_a_word_that_is_right_passes(line):
    assert not retired(line)

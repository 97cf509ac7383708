"""The tables of faults fit the code: each fault can be applied, and each named test exists.

Whether it does is found by `make mutants`, which takes minutes.
"""

import ast
import re
from collections import Counter
from functools import cache

import pytest
from omegaconf import OmegaConf

from rlhf_cli.config.compose import freeze
from rlhf_cli.config.keys import flatten
from tests.mutants.tables import ROOT, read_tables
from tests.support.configuration import composed

MUTANTS = read_tables()
LEAST = 120
MARKS = {"slow", "dist", "gpu", "arch"}


def marks_of(decorators: list[ast.expr]) -> set[str]:
    """Return the names behind pytest.mark in decorators, or in a list of them."""
    nodes = [node for one in decorators for node in ast.walk(one)]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} & MARKS


@cache
def marked_tests(file: str) -> dict[str, set[str]]:
    """Return the tests of a file with the marks that keep them out of the fast suite."""
    tree = ast.parse((ROOT / file).read_text())
    whole = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "pytestmark"
    ]
    return {
        node.name: marks_of(node.decorator_list + whole)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@cache
def meaning(file: str, text: str) -> str:
    """Return the meaning of a source file without its comments and line breaks."""
    return ast.dump(ast.parse(text)) if file.endswith(".py") else str(OmegaConf.create(text))


@pytest.mark.parametrize("area", sorted({one.area for one in MUTANTS}))
def test_every_fault_applies_and_changes_the_code(area: str):
    for mutant in (one for one in MUTANTS if one.area == area):
        whole = (ROOT / mutant.file).read_text()
        assert meaning(mutant.file, mutant.applied(ROOT)) != meaning(mutant.file, whole), (
            mutant.name
        )
        assert mutant.tests


def test_the_tests_named_for_faults_are_in_the_fast_suite():
    for test in {test for one in MUTANTS for test in one.tests}:
        file, name = test.split("::")
        assert marked_tests(file)[name.partition("[")[0]] == set(), test


def test_no_fault_is_listed_twice():
    changed = [(one.file, one.old, one.new) for one in MUTANTS]
    assert len(changed) == len(set(changed))


def test_every_key_has_a_fault_that_ignores_it():
    known = set(flatten(freeze(composed())))
    named = {key for one in MUTANTS for key in one.keys}
    assert not named - known, "no such keys"
    assert not known - named


def test_the_page_lists_every_table_with_its_number_of_faults():
    page = (ROOT / "docs" / "testing.md").read_text()
    listed = re.findall(r"^\| `(\w+)\.toml` \| (\d+) \|", page, flags=re.MULTILINE)
    assert {area: int(num) for area, num in listed} == Counter(one.area for one in MUTANTS)


def test_the_number_of_faults_has_a_minimum():
    assert len(MUTANTS) >= LEAST

"""Places of tests: test_x.py of a package mirrors x.py, and nothing is imported from a test."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "rlhf_cli"
# Tests of several modules together, of commands that take minutes, and of the tables of faults and
# trials. At the top: tests of the repository itself, of conf/ and docs/, and of rlhf_cli/*.py.
NOT_OF_ONE_MODULE = ("behaviour", "mutants", "slow", "trials")


def misplaced(tests: Path, package: Path) -> list[str]:
    """Return the test files, by their path below `tests`, of which `package` has no module."""
    files = [path.relative_to(tests) for path in tests.rglob("test_*.py")]
    mirrored = [p for p in files if len(p.parts) > 1 and p.parts[0] not in NOT_OF_ONE_MODULE]
    modules = {p: package / p.parent / p.name.removeprefix("test_") for p in mirrored}
    return sorted(str(path) for path, module in modules.items() if not module.is_file())


def imported_from_tests(tests: Path) -> list[str]:
    """Return the modules imported from files of tests or fixtures, which have their own place."""
    trees = [ast.parse(path.read_text()) for path in tests.rglob("*.py")]
    modules = {
        node.module
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
    }
    return sorted(
        name
        for name in modules
        if name.startswith("tests.") and name.rpartition(".")[2].startswith(("test_", "conftest"))
    )


def test_every_test_file_mirrors_a_module():
    assert not misplaced(TESTS, PACKAGE)


def test_nothing_is_imported_from_a_test_file():
    assert not imported_from_tests(TESTS)


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("core/test_kl.py", []),
        ("core/test_klx.py", ["core/test_klx.py"]),
        ("test_kl/test_core.py", ["test_kl/test_core.py"]),
        ("stages/test_kl.py", ["stages/test_kl.py"]),
        ("behaviour/test_learning.py", []),
        ("test_docs.py", []),
    ],
)
def test_a_file_without_its_module_is_noticed(file, found, tmp_path):
    path = tmp_path / "tests" / file
    path.parent.mkdir(parents=True)
    path.touch()
    module = tmp_path / "package" / "core" / "kl.py"
    module.parent.mkdir(parents=True)
    module.touch()
    assert misplaced(tmp_path / "tests", tmp_path / "package") == found


def test_an_import_from_a_test_is_noticed(tmp_path):
    (tmp_path / "test_a.py").write_text("from tests.core.test_kl import value\n")
    assert imported_from_tests(tmp_path) == ["tests.core.test_kl"]

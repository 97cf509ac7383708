"""Allowed imports: the contracts of pyproject.toml, and the libraries of the engines."""

import ast
import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import rlhf_cli

PACKAGE = Path(rlhf_cli.__file__).parent
ENGINES = ("accelerate", "deepspeed", "torch.distributed")
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    """Yield the full names of all imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def used(tree: ast.AST) -> set[str]:
    """Yield dotted names such as torch.distributed, imported in any way."""
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_runtime_touches_the_engines(path):
    if path.is_relative_to(PACKAGE / "runtime"):
        return
    tree = ast.parse(path.read_text())
    reached = {
        name
        for name in imported(tree) | used(tree)
        for engine in ENGINES
        if name == engine or name.startswith(f"{engine}.")
    }
    assert not reached


def test_packages_import_in_one_direction(capsys):
    config = str(PACKAGE.parent / "pyproject.toml")
    assert lint_imports(config_filename=config, cache_dir=None) == 0, capsys.readouterr().out


def test_only_the_embedded_task_names_what_it_measures():
    general = [path for path in FILES if not path.is_relative_to(PACKAGE / "tiny_world")]
    words = re.compile(r"(?<![a-z])(gold|rude)(?![a-z])", re.IGNORECASE)
    key = "evaluation.gold"  # which hides it, and its field in the schema
    texts = {path: path.read_text().replace(key, "").replace("gold: bool", "") for path in general}
    assert not [path for path, text in texts.items() if words.search(text)]


def test_no_module_is_named_utils_or_the_like():
    forbidden = {"utils", "helper", "helpers", "manager", "info", "args", "misc", "common"}
    assert not forbidden & {path.stem for path in FILES}

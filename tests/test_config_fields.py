"""Every field of the configuration is read by some code."""

import ast
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import rlhf_cli
from rlhf_cli.config import schema
from rlhf_cli.config.result_keys import POLICY_GRADIENTS, RAFTS
from rlhf_cli.config.schema import run
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.embedded import TASKS
from tests.support.configuration import composed

PACKAGE = Path(rlhf_cli.__file__).parent


def attributes_read() -> set[str]:
    """Return the names read as `something.name` anywhere except in the schema."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "schema":
            tree = ast.parse(path.read_text())
            found |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
            }
    return found


def test_every_field_is_read_somewhere():
    read = attributes_read()
    classes = [
        c for c in (vars(schema) | vars(run)).values() if isinstance(c, type) and is_dataclass(c)
    ]
    assert run.Config in classes
    unread = {f"{c.__name__}.{f.name}" for c in classes for f in fields(c) if f.name not in read}
    parents = {"Parents.sft", "Parents.rm"}  # pipeline.plan reads parents.<stage>
    sections = {f"Config.{scheme}" for scheme in TASKS}  # stages.reading reads those of all tasks
    sections |= {
        f"Config.{name}" for name in (*POLICY_GRADIENTS, *RAFTS)
    }  # a stage reads that of its name
    assert not unread - parents - sections


def test_every_field_has_a_type_that_omegaconf_checks():
    for name, hint in get_type_hints(run.Config).items():
        assert hint is not object, name


def test_sft_depends_on_evaluation_prompts_only_when_selecting_by_rm_score():
    """Only then SFT answers as many held-out prompts as the evaluation has."""
    plain = composed()
    scored = composed("sft.reward_model=x", "sft.select_by=rm_score")
    assert "evaluation.prompts" in STAGES["sft"].config(scored)
    assert "evaluation.prompts" not in STAGES["sft"].config(plain)

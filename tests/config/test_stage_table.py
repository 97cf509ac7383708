"""Everything that lists stages reads the table, so a new stage takes one row."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from rlhf_cli.config import completion, compose, stage_table
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.stage_spec import Makes
from rlhf_cli.config.stage_table import REPLACEABLE, STAGES
from rlhf_cli.report import help as help_page
from rlhf_cli.stages.evaluate import evaluator as evaluate
from tests.support.configuration import composed

DPO = replace(STAGES["ppo"], name="dpo", label="DPO", default=False)
WITH_DPO = MappingProxyType({"sft": STAGES["sft"], "dpo": DPO, "evaluate": STAGES["evaluate"]})


@pytest.fixture
def with_dpo(monkeypatch):
    """Add a stage to the table."""
    for module in (compose, completion, evaluate, help_page):
        monkeypatch.setattr(module, "STAGES", WITH_DPO)


def test_all_stages_are_those_of_the_default_pipeline(with_dpo):
    assert compose.stage_list("all") == ["sft", "evaluate"]
    assert compose.stage_list(["evaluate", "dpo"]) == ["dpo", "evaluate"]
    assert compose.stage_list(["all", "dpo"]) == ["sft", "dpo", "evaluate"]


def test_a_stage_that_trains_a_policy_is_a_column_of_the_evaluation(with_dpo):
    assert evaluate.candidates({"dpo", "rm", "sft"}) == {"sft": "SFT", "dpo": "DPO"}
    assert evaluate.candidates({"rm", "dpo"}) == {"dpo": "DPO"}


def test_the_evaluation_reads_every_stage_before_it():
    before = tuple(STAGES)[: list(STAGES).index("evaluate")]
    assert STAGES["evaluate"].parents(composed()) == before
    policies = tuple(name for name, row in STAGES.items() if row.makes is Makes.policy)
    assert {"sft", "ppo", "rloo", "dpo", "raft"} < set(policies) < {*before} == {*policies, "rm"}


def test_the_stage_of_the_rationale_model_is_a_parent_of_rationales():
    parents = STAGES["rationales"].parents
    assert parents(composed()) == ()
    assert parents(composed("rationales.of=ppo")) == ("ppo",)
    models = STAGES["rationales"].models
    assert set(models(composed())) == {"base"}
    assert set(models(composed("rationales.of=sft", "rationales.scorer=x"))) == {"scorer"}
    for other in ("rm", "evaluate", "bse"):
        with pytest.raises(UserError, match=f"rationales.of={other} is none of base, sft, ppo"):
            parents(composed(f"rationales.of={other}"))


def test_help_shows_the_stages_of_the_default_pipeline(with_dpo):
    assert help_page._pipeline().plain == "SFT -> evaluate"


def test_the_stages_that_parents_may_replace_have_completions():
    assert REPLACEABLE == ("sft", "rm") and REPLACEABLE is stage_table.REPLACEABLE
    assert {f"parents.{name}" for name in REPLACEABLE} <= set(completion.PLACES)

"""What a stage refuses before it begins, and what it tells the models that it loads."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.core.sharing import Share
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.setting import open_setting
from tests.stages.little import changed, little


@pytest.fixture(scope="module")
def setting():
    return open_setting(little())


def test_a_model_without_room_is_refused(setting):
    cfg = changed(setting.cfg, {"data.max_prompt_tokens": 100, "data.max_response_tokens": 29})
    with pytest.raises(UserError, match="129 tokens, but the model has 128 positions"):
        replace(setting, cfg=cfg).causal_lm()
    fits = changed(cfg, {"data.max_response_tokens": 28})
    assert replace(setting, cfg=fits).causal_lm() is not None


def test_batches_that_cannot_be_divided_are_refused(setting):
    four = replace(setting, world=World(Share(0, 4)))
    four.require_whole_shares({"sft.batch.size": 8})
    with pytest.raises(UserError, match=r"sft\.batch\.size=6 cannot be divided among 4 .* 4 or 8"):
        four.require_whole_shares({"sft.batch.size": 6})


def test_a_scalar_model_knows_the_pad_token_of_the_renderer(setting):
    other = replace(setting, renderer=SimpleNamespace(pad_id=7))
    assert other.scalar_model("tiny", new_head=True).config.pad_token_id == 7


def test_dropout_of_a_step_is_a_function_of_its_place(setting):
    def drawn(*place):
        setting.seed_dropout(*place)
        return float(torch.rand(()))

    assert drawn("sft", 1) == drawn("sft", 1)
    assert len({drawn("sft", 1), drawn("sft", 2), drawn("rm", 1)}) == 3

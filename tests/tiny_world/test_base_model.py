"""The sizes of the base model, and that a stored model is read back as it was, in float32."""

from random import Random

import pytest
import torch

from rlhf_cli.config.hub import LOCAL_MODELS
from rlhf_cli.models.load import load_causal_lm, load_tokenizer
from rlhf_cli.tiny_world.base_model import CONTEXT, SIZES, new_model, pack, save, train_tokenizer
from rlhf_cli.tiny_world.base_text import base_document
from tests.support.configuration import composed

ABOUT = {"tiny_xs": 0.3e6, "tiny": 1e6, "tiny_l": 3e6}


@pytest.fixture(scope="module")
def texts():
    rng = Random(2)
    return [base_document(rng) for _ in range(300)]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer(texts, 1536)


def test_every_size_is_a_choice_of_the_model_with_about_its_parameters(tokenizer):
    assert LOCAL_MODELS.keys() == SIZES.keys()
    for name, size in SIZES.items():
        assert new_model(tokenizer, size).num_parameters() == pytest.approx(ABOUT[name], rel=0.1)
        assert composed(f"model={name}").model.path == name


def test_the_files_of_all_sizes_fit_12_mb_together(tokenizer):
    sizes = [
        new_model(tokenizer, one).num_parameters() * one.dtype.itemsize for one in SIZES.values()
    ]
    assert sum(sizes) + len(SIZES) * 100_000 < 12e6


def test_a_row_has_complete_documents_each_ended(texts, tokenizer):
    rows = pack(tokenizer, texts)
    assert rows.shape[1] == CONTEXT
    assert int((rows == tokenizer.eos_token_id).sum()) == len(texts)


def test_what_is_stored_in_float16_is_loaded_in_float32(tmp_path, tokenizer):
    torch.manual_seed(0)
    model = new_model(tokenizer, SIZES["tiny_xs"])
    save(model.to(torch.float16), tokenizer, tmp_path / "model")
    found = load_causal_lm(composed(f"model.path={tmp_path / 'model'}").model)
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert torch.equal(found.model.embed_tokens.weight, model.model.embed_tokens.weight.float())
    assert len(load_tokenizer(composed(f"model.path={tmp_path / 'model'}").model)) == len(tokenizer)

"""What a model folder says of the model beside its weights."""

import json

import pytest
import torch
from transformers import Gemma3Config

from rlhf_cli.models.export import export, set_pad
from rlhf_cli.runtime.engine import persistent
from tests.support.tiny_models import causal


class Tokenizer:
    """Only its files matter here."""

    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text('{"of": "the stage"}')


def exported(model, folder, *, end_ids=(1,), pad_id=0, dtype=torch.float32):
    weights = ((name, value.detach().to(dtype)) for name, value in persistent(model))
    export(model, weights, Tokenizer(), folder, end_ids=list(end_ids), pad_id=pad_id)
    files = ("config.json", "generation_config.json", "tokenizer.json")
    return [json.loads((folder / name).read_text()) for name in files]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_config_says_what_the_weights_are_and_what_pads(dtype, tmp_path):
    """Not what it was loaded with: sequence classifiers find the last token by the pad id."""
    model = causal("llama")
    model.config.use_cache = False
    model.config.architectures = ["Another"]
    config, _, _ = exported(model, tmp_path / "m", pad_id=3, dtype=getattr(torch, dtype))
    assert config["pad_token_id"] == 3
    assert config["dtype"] == dtype
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["use_cache"]


@pytest.mark.parametrize(("end_ids", "said"), [([1], 1), ([7, 1], [7, 1])])
def test_generation_is_sampling_from_the_model_as_it_is_until_any_end(end_ids, said, tmp_path):
    model = causal("llama")
    model.generation_config.update(do_sample=False, temperature=0.6, top_k=20, top_p=0.8)
    _, generation, _ = exported(model, tmp_path / "m", end_ids=end_ids, pad_id=3)
    wanted = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    assert generation | wanted == generation
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (said, 3)


def test_the_tokenizer_travels_along(tmp_path):
    assert exported(causal("llama"), tmp_path / "m")[2] == {"of": "the stage"}


def test_the_part_about_text_says_what_pads_too():
    config = Gemma3Config()
    set_pad(config, 7)
    assert (config.pad_token_id, config.text_config.pad_token_id) == (7, 7)

"""Every key of `model` changes what is loaded, and only that."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers.dynamic_module_utils as dynamic

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import LearningRates, Model
from rlhf_cli.models.generation import sampling
from rlhf_cli.models.generation.cuda_graphs import CUDAGraphDecoder
from rlhf_cli.models.load import load_causal_lm, load_tokenizer
from tests.support.data_fixtures import byte_tokenizer
from tests.support.tiny_models import causal, ragged

MODEL = Model(
    path="tiny",
    revision=None,
    tokenizer=None,
    trust_remote_code=False,
    attention="sdpa",
    gradient_checkpointing=False,
    lr=LearningRates(sft=1.0, rm=1.0, policy=1.0, value=1.0),
)


def folder_of(where: Path, *, seed: int, end: str) -> Path:
    """Write a model with weights of this seed and a tokenizer with this end token."""
    causal("llama", seed=seed).save_pretrained(where)
    byte_tokenizer(eos_token=end).save_pretrained(where)
    return where


def same_weights(one, other) -> bool:
    return torch.equal(one.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_model_path_selects_the_model(tmp_path):
    place = folder_of(tmp_path / "m", seed=5, end="</s>")
    model = replace(MODEL, path=str(place))
    assert same_weights(load_causal_lm(model), causal("llama", seed=5))
    assert load_tokenizer(model).eos_token == "</s>"
    assert len(load_causal_lm(MODEL).get_input_embeddings().weight) != 40  # "tiny"


def test_model_tokenizer_may_be_elsewhere_and_a_stage_overrides_it(tmp_path):
    for name, end in (("m", "</m>"), ("t", "</t>"), ("stage", "</stage>")):
        folder_of(tmp_path / name, seed=0, end=end)
    model = replace(MODEL, path=str(tmp_path / "m"), tokenizer=str(tmp_path / "t"))
    assert load_tokenizer(model).eos_token == "</t>"
    assert load_tokenizer(model, str(tmp_path / "stage")).eos_token == "</stage>"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Write someone/small into the cache of the hub: main and a tag with other weights and end."""
    repository = tmp_path / "hub" / "models--someone--small"
    for number, (name, end) in enumerate({"main": "</main>", "v2": "</v2>"}.items()):
        commit = str(number) * 40
        folder_of(repository / "snapshots" / commit, seed=number, end=end)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return replace(MODEL, path="someone/small")


@pytest.mark.parametrize(("revision", "seed", "end"), [(None, 0, "</main>"), ("v2", 1, "</v2>")])
def test_model_revision_selects_the_revision_of_the_hub(hub, revision, seed, end):
    model = replace(hub, revision=revision)
    assert same_weights(load_causal_lm(model), causal("llama", seed=seed))
    assert load_tokenizer(model).eos_token == end


def test_model_revision_does_not_apply_to_another_tokenizer(hub):
    """The repository of the tokenizer has no such tag."""
    model = replace(MODEL, revision="v2", tokenizer="someone/small")
    assert load_tokenizer(model).eos_token == "</main>"


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """Return a model whose classes are in its own folder."""
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    place = folder_of(tmp_path / "own", seed=3, end="</s>")
    (place / "own.py").write_text(CODE)
    config = json.loads((place / "config.json").read_text())
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnLM"}
    (place / "config.json").write_text(
        json.dumps(config | {"model_type": "own_llama", "auto_map": classes})
    )
    return replace(MODEL, path=str(place))


def test_custom_code_runs_only_with_trust_remote_code(own_code):
    with pytest.raises(UserError, match="could not be loaded"):
        load_causal_lm(own_code)
    model = load_causal_lm(replace(own_code, trust_remote_code=True))
    assert type(model).__name__ == "OwnLM"
    assert same_weights(model, causal("llama", seed=3))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_model_attention_selects_the_attention(attention, tmp_path):
    folder_of(tmp_path, seed=0, end="</s>")
    model = replace(MODEL, path=str(tmp_path), attention=attention)
    assert load_causal_lm(model, unpadded=False).config._attn_implementation == attention


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_checkpointing_computes_every_block_twice(checkpointing, tmp_path):
    causal("llama").save_pretrained(tmp_path)
    model = replace(MODEL, path=str(tmp_path), gradient_checkpointing=checkpointing)
    network = load_causal_lm(model, unpadded=False).train()
    runs = []
    network.model.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    tokens, _ = ragged(2, 5, side="right")
    network(tokens, use_cache=False).logits.square().sum().backward()
    assert len(runs) == 1 + checkpointing


@pytest.mark.parametrize("graphs", [False, True])
def test_cuda_graphs_are_used_on_a_gpu_only_when_requested(graphs):
    def decoder_on(device: str, **options):
        options = {"reference": False, "cuda_graphs": graphs} | options
        return sampling.decoder_class(causal("llama"), torch.device(device), **options)

    assert (decoder_on("cuda") is CUDAGraphDecoder) is graphs
    assert decoder_on("cpu") is not CUDAGraphDecoder
    assert decoder_on("cuda", reference=True) is not CUDAGraphDecoder

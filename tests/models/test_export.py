"""A model folder written tensor by tensor is the one that plain transformers writes and reads."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma3Config,
    MixtralConfig,
)

from rlhf_cli.config.errors import UserError
from rlhf_cli.models import export as exporting
from rlhf_cli.models.export import export, set_pad
from rlhf_cli.runtime.engine import persistent
from tests.support.tiny_models import CONFIGS, SPECIAL, VOCAB, causal, scalar


class Tokenizer:
    """Only its files matter here."""

    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text('{"of": "the stage"}')


def write(model, folder, weights=None, end_ids=(1,)):
    weights = persistent(model) if weights is None else weights
    weights = ((name, None if w is None else w.detach()) for name, w in weights)
    export(model, weights, Tokenizer(), folder, end_ids=list(end_ids), pad_id=0)


def names(folder) -> set[str]:
    found = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
            found |= set(file.keys())
    return found


def assert_loads_alike(auto, model, folder):
    loaded, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokens = torch.tensor([[3, 4, 5, 1]])
    with torch.no_grad():
        assert torch.equal(loaded.eval()(tokens).logits, model.eval()(tokens).logits)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["causal", "scalar"])
def test_the_folder_is_that_of_save_pretrained(name, kind, tmp_path):
    """Another model of the same weights, which our export never saw, is saved to compare with."""
    make = causal if kind == "causal" else scalar
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    model = make(name)
    write(model, tmp_path / "ours")
    make(name).save_pretrained(tmp_path / "theirs")
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    ours, theirs = (content(tmp_path / who / "config.json") for who in ("ours", "theirs"))
    assert ours == theirs
    files = [tmp_path / who / "generation_config.json" for who in ("ours", "theirs")]
    assert [file.exists() for file in files] == [kind == "causal"] * 2
    assert_loads_alike(auto, model, tmp_path / "ours")


def content(path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize(("end_ids", "said"), [([1], 1), ([1, 7], [1, 7])])
def test_nothing_that_shaped_the_parents_sampling_is_left(end_ids, said, tmp_path):
    """Whoever calls generate on the folder samples from the model as it was trained."""
    model = causal("llama")
    model.generation_config.update(
        do_sample=True, repetition_penalty=1.3, min_p=0.1, no_repeat_ngram_size=3, temperature=0.6,
        top_k=20, top_p=0.8, max_length=17, bos_token_id=5, suppress_tokens=[4],
    )  # fmt: skip
    write(model, tmp_path / "model", end_ids=end_ids)
    found = content(tmp_path / "model" / "generation_config.json")
    del found["transformers_version"]
    assert found == {
        "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
        "bos_token_id": 5, "eos_token_id": said, "pad_token_id": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("value", "said"), [("nan", "NaN"), ("-inf", "an infinite number")])
def test_weights_that_are_not_finite_are_refused_by_name_and_nothing_is_put_there(
    value, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(exporting, "FILE_BYTES", 4000)  # some files are written before it is met
    write(causal("llama"), tmp_path / "model")
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    model = causal("llama", seed=1)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = float(value)
    name = r"model\.layers\.1\.mlp\.up_proj\.weight"
    with pytest.raises(UserError, match=f"not written: its weight {name} holds {said}; lower"):
        write(model, tmp_path / "model")
    assert before == {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}


def test_whoever_may_read_the_config_may_read_the_weights(tmp_path):
    before = os.umask(0o027)
    try:
        write(causal("llama"), tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o640}


def test_large_models_come_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "FILE_BYTES", 4000)
    model = causal("llama")
    write(model, tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2
    assert files == {path.name for path in (tmp_path / "model").glob("*.safetensors")}
    assert index["metadata"]["total_size"] == sum(
        4 * parameter.numel() for parameter in model.parameters()
    )
    assert_loads_alike(AutoModelForCausalLM, model, tmp_path / "model")


def test_names_are_those_of_the_hub_where_transformers_converts_them(tmp_path):
    """Mixtral's experts are fused in memory and apart on the hub."""
    config = MixtralConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=2, **SPECIAL,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "theirs")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    write(model, tmp_path / "ours")
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    assert_loads_alike(AutoModelForCausalLM, model, tmp_path / "ours")


def test_who_gets_no_tensors_writes_nothing_but_takes_part(tmp_path):
    asked = []

    def weights():
        for name, _ in persistent(causal("llama")):
            asked.append(name)
            yield name, None

    write(causal("llama"), tmp_path / "model", weights())
    assert asked
    assert not (tmp_path / "model").exists()


def test_an_older_folder_is_replaced_whole(tmp_path):
    write(causal("llama"), tmp_path / "model")
    (tmp_path / "model" / "stray").write_text("")
    write(causal("llama", seed=1), tmp_path / "model")
    assert not (tmp_path / "model" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


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

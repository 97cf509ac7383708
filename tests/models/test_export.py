"""A model folder written tensor by tensor equals the one that transformers writes and reads."""

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
    """A tokenizer of which only the files matter."""

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
def test_an_exported_folder_equals_that_of_save_pretrained(name, kind, tmp_path):
    """A second model with the same weights is saved with save_pretrained for comparison."""
    make = causal if kind == "causal" else scalar
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    model = make(name)
    write(model, tmp_path / "ours")
    make(name).save_pretrained(tmp_path / "theirs")
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    ours, theirs = (content(tmp_path / source / "config.json") for source in ("ours", "theirs"))
    assert ours == theirs
    files = [tmp_path / source / "generation_config.json" for source in ("ours", "theirs")]
    assert [file.exists() for file in files] == [kind == "causal"] * 2
    assert_loads_alike(auto, model, tmp_path / "ours")


def content(path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize(("end_ids", "expected"), [([1], 1), ([1, 7], [1, 7])])
def test_sampling_settings_of_the_parent_are_not_exported(end_ids, expected, tmp_path):
    """A call of generate on the folder samples from the unmodified distribution."""
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
        "bos_token_id": 5, "eos_token_id": expected, "pad_token_id": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), [("nan", "NaN"), ("-inf", "an infinite number")])
def test_weights_that_are_not_finite_are_refused_and_the_old_folder_is_kept(
    value, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        exporting, "FILE_BYTES", 4000
    )  # some files are written before the bad weight
    write(causal("llama"), tmp_path / "model")
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    model = causal("llama", seed=1)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = float(value)
    name = r"model\.layers\.1\.mlp\.up_proj\.weight"
    with pytest.raises(UserError, match=f"not written: its weight {name} holds {expected}; lower"):
        write(model, tmp_path / "model")
    assert before == {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}


def test_a_buffer_may_hold_an_infinite_bound(tmp_path):
    model = causal("llama")
    model.model.register_buffer("input_max", torch.tensor(float("inf")))
    write(model, tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert file.get_tensor("model.input_max") == float("inf")
    model.model.input_max.fill_(float("nan"))
    with pytest.raises(
        UserError, match=r"not written: its weight model\.input_max holds NaN; lower"
    ):
        write(model, tmp_path / "model")


def test_all_exported_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write(causal("llama"), tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o640}


def test_large_models_are_written_to_several_files(tmp_path, monkeypatch):
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


def test_weights_have_the_names_of_the_hub_where_transformers_converts_them(tmp_path):
    """The experts of Mixtral are fused in memory and separate on the hub."""
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


def test_a_rank_without_tensors_iterates_the_weights_and_writes_nothing(tmp_path):
    requested_names = []

    def weights():
        for name, _ in persistent(causal("llama")):
            requested_names.append(name)
            yield name, None

    write(causal("llama"), tmp_path / "model", weights())
    assert requested_names
    assert not (tmp_path / "model").exists()


def test_an_existing_folder_is_replaced_completely(tmp_path):
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
def test_the_exported_config_has_the_dtype_the_class_and_the_pad_token(dtype, tmp_path):
    """The values loaded from the parent do not count; classifiers find the last token by pad id."""
    model = causal("llama")
    model.config.use_cache = False
    model.config.architectures = ["Another"]
    config, _, _ = exported(model, tmp_path / "m", pad_id=3, dtype=getattr(torch, dtype))
    assert config["pad_token_id"] == 3
    assert config["dtype"] == dtype
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["use_cache"]


@pytest.mark.parametrize(("end_ids", "expected"), [([1], 1), ([7, 1], [7, 1])])
def test_the_generation_config_samples_unmodified_until_any_end_token(end_ids, expected, tmp_path):
    model = causal("llama")
    model.generation_config.update(do_sample=False, temperature=0.6, top_k=20, top_p=0.8)
    _, generation, _ = exported(model, tmp_path / "m", end_ids=end_ids, pad_id=3)
    wanted = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    assert generation | wanted == generation
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (expected, 3)


def test_the_tokenizer_is_exported_with_the_model(tmp_path):
    assert exported(causal("llama"), tmp_path / "m")[2] == {"of": "the stage"}


def test_set_pad_sets_the_pad_token_of_the_text_config_too():
    config = Gemma3Config()
    set_pad(config, 7)
    assert (config.pad_token_id, config.text_config.pad_token_id) == (7, 7)

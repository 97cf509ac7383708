"""A model folder written tensor by tensor is the one that plain transformers writes and reads."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, MixtralConfig

from rlhf_cli.models import exporting
from rlhf_cli.models.exporting import export
from rlhf_cli.runtime.engine import persistent
from tests.models.tiny import CONFIGS, SPECIAL, VOCAB, causal, scalar


class Tokenizer:
    """Only its files matter here."""

    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def write(model, folder, weights=None):
    weights = persistent(model) if weights is None else weights
    weights = ((name, None if w is None else w.detach()) for name, w in weights)
    export(model, weights, Tokenizer(), folder, end_ids=[1], pad_id=0)


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
    model = causal(name) if kind == "causal" else scalar(name)
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    write(model, tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    for file in ("config.json", "generation_config.json"):
        ours, theirs = tmp_path / "ours" / file, tmp_path / "theirs" / file
        assert ours.exists() == theirs.exists()
        assert not ours.exists() or json.loads(ours.read_text()) == json.loads(theirs.read_text())
    assert_loads_alike(auto, model, tmp_path / "ours")


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

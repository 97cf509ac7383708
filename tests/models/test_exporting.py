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


# What means the same whether it is written or not.
SHAPE = {"temperature": 1.0, "top_p": 1.0}
# What the export says on purpose; all else is what transformers says of the untouched model.
SAID = {
    "config.json": {"pad_token_id": 0, "use_cache": True, "dtype": "float32"},
    "generation_config.json": {
        "eos_token_id": 1, "pad_token_id": 0, "do_sample": True, "top_k": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["causal", "scalar"])
def test_the_folder_is_that_of_save_pretrained(name, kind, tmp_path):
    """Beside what transformers writes of the same model, which the export has never touched."""
    make = causal if kind == "causal" else scalar
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    untouched, model = make(name), make(name)
    untouched.save_pretrained(tmp_path / "theirs")
    model.config.pad_token_id = None
    write(model, tmp_path / "ours")
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    for file, said in SAID.items():
        ours, theirs = tmp_path / "ours" / file, tmp_path / "theirs" / file
        assert ours.exists() == theirs.exists()
        if ours.exists():
            found = json.loads(ours.read_text())
            assert {key: found.get(key) for key in said} == said
            rest = json.loads(theirs.read_text()) | said
            assert {k: v for k, v in found.items() if v != SHAPE.get(k)} == {
                k: v for k, v in rest.items() if v != SHAPE.get(k)
            }
    assert_loads_alike(auto, untouched, tmp_path / "ours")


def test_plain_generate_samples_as_the_policy_was_trained(tmp_path):
    """From the full softmax at temperature 1, until any of the end tokens."""
    model = causal("llama")
    model.generation_config.update(temperature=0.3, top_k=7, top_p=0.5)
    export(model, persistent(model), Tokenizer(), tmp_path / "m", end_ids=[1, 3], pad_id=0)
    said = AutoModelForCausalLM.from_pretrained(tmp_path / "m").generation_config
    assert said.do_sample is True
    assert said.temperature in (None, 1.0)
    assert said.top_p in (None, 1.0)
    assert said.top_k == 0
    assert said.eos_token_id == [1, 3]
    assert said.pad_token_id == 0


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

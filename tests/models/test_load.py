"""Loading reads exactly the weights of the files: missing weights and heads are errors."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    CohereConfig,
    MptConfig,
    PreTrainedTokenizerFast,
)

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import LearningRates, Model
from rlhf_cli.models.export import export
from rlhf_cli.models.forward import sequence_scores
from rlhf_cli.models.load import (
    fit_embeddings,
    load_causal_lm,
    load_classifier,
    load_reward_model,
    load_scalar_model,
)
from rlhf_cli.models.reward_head import transformers_has_class
from tests.support.suites import classifier
from tests.support.tiny_models import SPECIAL, VOCAB, causal, ragged, scalar

BLOOM = BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2, **SPECIAL)
COHERE = CohereConfig(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    **SPECIAL,
)


def model_config(path, **changes) -> Model:
    rates = LearningRates(sft=1, rm=1, policy=1, value=1)
    values = {"revision": None, "tokenizer": None, "trust_remote_code": False, "lr": rates}
    values |= {"attention": "auto", "gradient_checkpointing": False}
    return Model(path=str(path), **(values | changes))


@pytest.fixture
def folder(tmp_path):
    causal("llama", seed=1).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod."])
def test_weights_saved_with_the_names_of_a_wrapper_are_refused(folder, wrapper):
    path = folder / "model.safetensors"
    named = {f"{wrapper}{name}": tensor for name, tensor in load_file(path).items()}
    save_file(named, path, metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=rf"hold {wrapper}.* and 20 more .* save model\.{wrapper[:-1]}"
    ):
        load_causal_lm(model_config(folder))


def test_a_missing_weight_is_refused_by_name(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight of LlamaFor"):
        load_causal_lm(model_config(folder))


def test_a_classifier_is_refused_as_a_language_model(tmp_path):
    scalar("llama").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lack lm_head.weight .* and hold score.weight instead"):
        load_causal_lm(model_config(tmp_path))


def test_a_language_model_is_refused_as_a_reward_model_unless_new_head_is_set(folder):
    with pytest.raises(UserError, match="it is no reward model: give one that has a trained head"):
        load_scalar_model(model_config(folder), str(folder), new_head=False)
    model = load_scalar_model(model_config(folder), str(folder), new_head=True)
    body = load_causal_lm(model_config(folder)).model.layers[0].mlp.up_proj.weight
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, body)


def test_a_classifier_of_three_classes_is_refused_as_a_reward_model(tmp_path):
    model = scalar("llama")
    model.config.num_labels = 3
    model.score = torch.nn.Linear(16, 3, bias=False)
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="head with 3 outputs: a reward model needs one"):
        load_scalar_model(model_config(tmp_path), str(tmp_path), new_head=False)


def tokenizer(words: int, specials: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = {f"w{i}": i for i in range(words)}
    inner = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": []}
    inner |= {"normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None}
    inner |= {
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    }
    from tokenizers import Tokenizer

    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(inner)))
    made.add_tokens(specials, special_tokens=True)
    return made


def test_only_special_tokens_may_extend_the_embeddings():
    model = causal("llama")
    assert fit_embeddings(model, tokenizer(VOCAB, [])) == 0
    assert fit_embeddings(model, tokenizer(VOCAB, ["<|pad|>", "<|end|>"])) == 2
    assert model.get_input_embeddings().num_embeddings == VOCAB + 2
    with pytest.raises(UserError, match=r"has 50 tokens, but the model has embeddings for 42"):
        fit_embeddings(model, tokenizer(50, []))


@pytest.mark.parametrize(("config", "attention"), [(BLOOM, "eager"), (COHERE, "sdpa")])
def test_automatic_attention_is_the_best_that_the_class_supports(tmp_path, config, attention):
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert load_causal_lm(model_config(tmp_path)).config._attn_implementation == attention
    named = load_causal_lm(model_config(tmp_path, attention="eager"))
    assert named.config._attn_implementation == "eager"


def test_unsupported_gradient_checkpointing_is_refused(folder, monkeypatch):
    monkeypatch.setattr("transformers.LlamaForCausalLM.supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match="LlamaForCausalLM does not support it: set it to false"):
        load_causal_lm(model_config(folder, gradient_checkpointing=True))


@pytest.mark.parametrize(("config", "has_class"), [(None, True), (COHERE, False)])
def test_a_reward_model_scores_the_same_after_export_and_loading(tmp_path, config, has_class):
    """Transformers loads it where it has a class, and load_reward_model always."""
    torch.manual_seed(0)
    base = causal("llama") if config is None else AutoModelForCausalLM.from_config(config)
    base.save_pretrained(tmp_path / "base")
    model = load_scalar_model(model_config(tmp_path), str(tmp_path / "base"), new_head=True).eval()
    assert transformers_has_class(model.config) is has_class
    tokens, mask = ragged(5, 9, side="right", seed=2)
    weights = ((name, value.detach()) for name, value in model.named_parameters())
    export(model, weights, tokenizer(VOCAB, []), tmp_path / "rm", end_ids=[1], pad_id=0)
    with torch.no_grad():
        wanted = sequence_scores(model, tokens, mask)
        loaded = [load_reward_model(tmp_path / "rm")]
        if has_class:
            loaded.append(
                AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
            )
        for one in loaded:
            found = one(input_ids=tokens, attention_mask=mask.long()).logits[:, 0]
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(
        load_scalar_model(
            model_config(tmp_path), str(tmp_path / "rm"), new_head=False
        ).score.weight,
        model.score.weight,
    )


def test_a_dropout_that_the_model_configuration_does_not_support_is_refused(tmp_path):
    config = MptConfig(vocab_size=VOCAB, d_model=16, n_heads=2, n_layers=1, **SPECIAL)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    given = model_config(tmp_path)
    assert load_causal_lm(given).config.attn_config.attn_pdrop == 0
    with pytest.raises(UserError, match=r"dropout=0\.1: mpt takes only a whole number as attn_"):
        load_causal_lm(given, dropout=0.1)


def test_a_classifier_is_loaded_without_the_code_in_its_folder(tmp_path):
    """Not even where the policies' own code may run."""
    place = tmp_path / "scorer"
    classifier(place, ["toxic", "neutral"])
    config = json.loads((place / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "own.Own", "AutoConfig": "own.Own"}
    (place / "config.json").write_text(json.dumps(config))
    (place / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    network, tokenizer = load_classifier(model_config("x", trust_remote_code=True), str(place))
    assert type(network).__name__ == "LlamaForSequenceClassification"
    assert not (tmp_path / "ran").exists()
    assert network.config.id2label == {0: "toxic", 1: "neutral"}
    assert network.config.pad_token_id == tokenizer.pad_token_id


def test_a_classifier_without_its_head_is_refused(tmp_path):
    classifier(tmp_path, ["toxic", "neutral"])
    weights = load_file(tmp_path / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"score\.weight"):
        load_classifier(model_config("x"), str(tmp_path))

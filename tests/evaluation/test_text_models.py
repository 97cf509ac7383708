"""Embeddings and labels of texts, compared with each text read alone by plain transformers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    T5Config,
)

from rlhf_cli.config.errors import UserError
from rlhf_cli.core.microbatches import Share
from rlhf_cli.evaluation.text_models import open_encoder, open_nli
from rlhf_cli.runtime.world import World
from tests.support.tabular import CPU
from tests.support.text_models import WORDS, save_classifier, save_encoder

TEXTS = ["the cat saw a dog.", "cold", "it is cold!", "cold", "", "the red owl met the red cat ."]
PAIRS = [("it is cold", "it is"), ("it is", "it is cold"), ("a red cat", "a red cat")]
KEY = "evaluation.diversity.embedder"


def opened(open_one, path: str, batch: int = 3, world: World | None = None):
    return open_one(KEY, path, device=CPU, batch=batch, world=world or World())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    return save_classifier(tmp_path_factory.mktemp("classifier"))


@torch.no_grad()
def test_an_embedding_is_the_mean_of_the_last_states_of_the_text_alone(encoder):
    model, tokenizer = AutoModel.from_pretrained(encoder), AutoTokenizer.from_pretrained(encoder)
    found = opened(open_encoder, encoder).embeddings(TEXTS)
    for text, embedding in zip(TEXTS, found, strict=True):
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(embedding, states[0].mean(0), atol=1e-5, rtol=1e-4)
    assert torch.equal(found[1], found[3])
    assert (found[0] - found[1]).abs().max() > 0.1


@torch.no_grad()
def test_labels_are_found_by_name_and_a_pair_has_its_order(classifier):
    model = AutoModelForSequenceClassification.from_pretrained(classifier)
    tokenizer, expected = AutoTokenizer.from_pretrained(classifier), []
    for premise, hypothesis in PAIRS:
        probs = model(**tokenizer(premise, hypothesis, return_tensors="pt")).logits.softmax(1)[0]
        expected.append({0: 0.0, 1: 1.0, 2: -1.0}[int(probs.argmax())] * float(probs.max()))
    found = opened(open_nli, classifier).nli(PAIRS)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert len({round(x, 3) for x in expected}) == 3


def test_ranks_share_the_texts_and_their_results_add_up(encoder):
    whole = opened(open_encoder, encoder, batch=2).embeddings(TEXTS)
    parts = [
        opened(open_encoder, encoder, 2, World(Share(rank, 2))).embeddings(TEXTS)
        for rank in range(2)
    ]
    assert all(0 < int(part.any(1).sum()) < len(TEXTS) for part in parts)
    torch.testing.assert_close(parts[0] + parts[1], whole, atol=1e-5, rtol=1e-4)


def test_a_long_text_is_cut_to_what_the_model_reads(encoder):
    model = opened(open_encoder, encoder)
    assert model.room == 30
    words = [WORDS[i % len(WORDS)] for i in range(60)]
    long, cut = model.embeddings([" ".join(words), " ".join(words[:28])])
    assert torch.equal(long, cut)


def test_special_tokens_in_a_text_are_read_as_text(encoder):
    model = opened(open_encoder, encoder)
    ids, _ = model._encoded(("cold [SEP] cold",))
    assert ids.count(3) == 1


def test_an_empty_text_has_an_embedding_without_special_tokens_too(tmp_path):
    found = opened(open_encoder, save_encoder(tmp_path, special=False)).embeddings(["", "", "cat"])
    assert torch.equal(found[0], found[1]) and found.isfinite().all()
    assert not torch.equal(found[0], found[2])


@torch.no_grad()
def test_of_an_encoder_decoder_the_encoder_embeds(tmp_path):
    config = T5Config(
        vocab_size=20, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=2,
        pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    path = save_encoder(tmp_path, config)
    model, tokenizer = AutoModel.from_pretrained(path).encoder, AutoTokenizer.from_pretrained(path)
    found = opened(open_encoder, path).embeddings(["the cat", "the cat saw a dog"])
    ids = tokenizer("the cat", return_tensors="pt")["input_ids"]
    expected = model(input_ids=ids).last_hidden_state[0].mean(0)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-4)


def test_a_causal_model_can_embed():
    found = opened(open_encoder, "tiny").embeddings(["cold", "It is cold."])
    assert found.shape == (2, 128) and not torch.equal(found[0], found[1])


def test_other_labels_are_refused(tmp_path):
    path = save_classifier(tmp_path, {0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"})
    with pytest.raises(UserError, match=r"has the labels negative, neutral, positive: an NLI"):
        opened(open_nli, path)


def test_missing_weights_are_refused_but_for_a_pooler(tmp_path):
    path = Path(save_encoder(tmp_path))
    weights = load_file(path / "model.safetensors")

    def without(word: str) -> None:
        kept = {name: x for name, x in weights.items() if word not in name}
        assert len(kept) < len(weights)
        save_file(kept, path / "model.safetensors", metadata={"format": "pt"})

    without("pooler")
    opened(open_encoder, str(path))
    without("layer.1.output.dense")
    with pytest.raises(UserError, match=r"embedder=.* cannot be used: its files lack encoder\.lay"):
        opened(open_encoder, str(path))


def test_code_of_a_repository_is_never_run(tmp_path):
    path = Path(save_encoder(tmp_path))
    (path / "own.py").write_text("raise SystemExit('it was run')")
    config = json.loads((path / "config.json").read_text())
    own = {"auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}, "model_type": "own"}
    (path / "config.json").write_text(json.dumps(config | own))
    with pytest.raises(UserError, match=r"embedder could not be loaded: .*which is not run: choos"):
        opened(open_encoder, str(path))


def test_a_missing_folder_and_another_format_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"embedder could not be loaded: .*no such folder"):
        opened(open_encoder, str(tmp_path / "nowhere"))
    path = Path(save_encoder(tmp_path / "model"))
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"embedder could not be loaded"):
        opened(open_encoder, str(path))

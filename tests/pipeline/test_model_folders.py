"""Checks of a model folder before it is loaded: its kind, its weights, its code."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from rlhf_cli.artifacts.manifest import ArtifactError
from rlhf_cli.config.errors import UserError
from rlhf_cli.pipeline import model_folders
from rlhf_cli.pipeline.model_folders import (
    damage,
    external,
    require_classifier,
    require_model,
    shipped,
)
from tests.support.configuration import composed
from tests.support.suites import classifier


@pytest.fixture(scope="module")
def model():
    return composed().model


@pytest.fixture
def folder(tmp_path):
    """Return a copy of the shipped model."""
    return shutil.copytree(shipped("tiny"), tmp_path / "tiny")


def edit(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_complete_folder_a_hub_id_and_the_shipped_model_are_accepted(model, folder):
    for place in (str(folder), "owner/name", "gpt2", "tiny"):
        require_model("model.path", place, model)


def test_an_embedded_model_that_was_not_built_is_refused_with_the_command(
    model, monkeypatch, tmp_path
):
    monkeypatch.setattr(model_folders, "PACKAGE", tmp_path)
    with pytest.raises(ArtifactError, match=r"model\.path=tiny_l: .*package") as refused:
        require_model("model.path", "tiny_l", model)
    assert "make base-model SIZE=tiny_l" in str(refused.value)


@pytest.mark.parametrize("place", ["./nosuch", "/no/such", "~/no/such/folder", "a/b/c"])
def test_a_missing_model_folder_is_refused(model, place):
    with pytest.raises(ArtifactError, match=rf"model\.path={place}: there is no such folder"):
        require_model("model.path", place, model)


def test_a_path_whose_first_folder_exists_is_not_taken_for_a_hub_id(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert external("parents.rm", "runs/nosuch", "rm", model) is None
    (tmp_path / "runs").mkdir()
    with pytest.raises(ArtifactError, match=r"parents\.rm=runs/nosuch is no finished stage"):
        external("parents.rm", "runs/nosuch", "rm", model)
    with pytest.raises(ArtifactError, match=r"model\.path=runs/nosuch: there is no such folder"):
        require_model("model.path", "runs/nosuch", model)


def test_a_path_that_is_not_a_model_folder_is_refused_with_the_reason(model, folder):
    with pytest.raises(ArtifactError, match=r"config\.json is a file, and no model"):
        require_model("model.path", str(folder / "config.json"), model)
    with pytest.raises(ArtifactError, match=r"a folder without config\.json"):
        require_model("model.path", str(folder.parent), model)
    (folder / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config\.json is not valid JSON"):
        require_model("model.path", str(folder), model)


def test_weights_must_be_safetensors_and_complete(model, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ArtifactError, match=r"has no model\.safetensors; give .* safetensors weights"
    ):
        require_model("model.path", str(folder), model)
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": torch.ones(3)}, folder / "one.safetensors")
    with pytest.raises(ArtifactError, match=r"has no two\.safetensors"):
        require_model("model.path", str(folder), model)
    save_file({"b": torch.ones(3)}, folder / "two.safetensors")
    require_model("model.path", str(folder), model)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_weights_are_refused(model, folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        ArtifactError, match=r"model\.safetensors is damaged: \d+ bytes .*copy or downl"
    ):
        require_model("model.path", str(folder), model)


def test_an_unreadable_safetensors_header_is_damage(tmp_path):
    path = tmp_path / "x.safetensors"
    for text in (b"[1, 2]", b"{'a'", b'{"a": 3}'):
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        assert damage(path) == "its header cannot be read"
    save_file({"a": torch.ones(3), "b": torch.zeros(0)}, path, metadata={"format": "pt"})
    assert damage(path) is None


def test_a_folder_without_a_tokenizer_is_refused_and_names_the_key(model, folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ArtifactError, match=r"has no tokenizer files; set model\.tokenizer="):
        require_model("model.path", str(folder), model)
    require_model("model.path", str(folder), model, has_tokenizer=False)


def test_custom_code_needs_trust_remote_code_unless_transformers_has_the_model(model, folder):
    edit(folder, auto_map={"AutoConfig": "own.Config"})
    require_model("model.path", str(folder), model)
    edit(folder, model_type="own")
    with pytest.raises(ArtifactError, match=r"own\.Config.*set model\.trust_remote_code=true"):
        require_model("model.path", str(folder), model)
    require_model("model.path", str(folder), replace(model, trust_remote_code=True))


def test_a_text_classifier_is_refused_for_what_it_lacks(tmp_path):
    folder = tmp_path / "scorer"
    place = classifier(folder, ["neutral", "toxic"])
    for accepted in (place, "owner/name"):
        require_classifier("toxicity_model", accepted)
    label = rf"evaluation\.suites\.toxicity_model={folder}"
    edit(folder, id2label=None)
    with pytest.raises(
        UserError, match=rf"{label}: none of its labels \(LABEL_0, LABEL_1\) is toxic"
    ):
        require_classifier("toxicity_model", place)
    # A class of its own, of a type that transformers does not have.
    code = {"auto_map": {"AutoModel": "own.Own"}, "model_type": "own"}
    edit(folder, id2label={"0": "toxic"}, **code)
    with pytest.raises(ArtifactError, match=rf"{label} needs Python code .*, which is not run"):
        require_classifier("toxicity_model", place)
    edit(folder, auto_map=None, model_type="llama")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ArtifactError, match=rf"{label} has no tokenizer files"):
        require_classifier("toxicity_model", place)
    with pytest.raises(ArtifactError, match=r"toxicity_model=/no/such: there is no such folder"):
        require_classifier("toxicity_model", "/no/such")

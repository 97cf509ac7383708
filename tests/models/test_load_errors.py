"""Errors of loading name the folder, the reason and the remedy."""

import shutil
from dataclasses import replace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.models.load import ASSETS, load_causal_lm, load_tokenizer
from rlhf_cli.models.load_errors import why
from tests.support.configuration import composed


@pytest.fixture
def damaged_copy(tmp_path):
    """Return a copy of the shipped model, to be damaged."""
    return shutil.copytree(ASSETS / "tiny", tmp_path / "copy")


def model(path):
    return replace(composed().model, path=str(path))


def error_of(load, path) -> str:
    with pytest.raises(UserError) as error:
        load(model(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_without_a_tokenizer_is_refused_and_names_the_key(damaged_copy):
    for file in damaged_copy.glob("tokenizer*"):
        file.unlink()
    assert (
        f"{damaged_copy} has no tokenizer files (such as tokenizer.json): set model.tokenizer"
        in error_of(load_tokenizer, damaged_copy)
    )


def test_a_file_in_place_of_a_model_folder_is_refused(damaged_copy):
    assert "config.json is a file: give its folder" in error_of(
        load_tokenizer, damaged_copy / "config.json"
    )


def test_a_missing_model_folder_is_refused(tmp_path):
    assert f"{tmp_path}/nosuch: no such folder" in error_of(load_tokenizer, tmp_path / "nosuch")


def test_a_folder_without_a_config_is_refused(damaged_copy):
    (damaged_copy / "config.json").unlink()
    assert f"{damaged_copy} has no config.json: it is no folder of a model" in error_of(
        load_causal_lm, damaged_copy
    )


def test_truncated_weights_are_refused(damaged_copy):
    weights = damaged_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert f"{weights} is cut short or damaged: copy it again" in error_of(
        load_causal_lm, damaged_copy
    )


def test_a_model_with_custom_code_is_refused_and_names_the_key(damaged_copy):
    config = (damaged_copy / "config.json").read_text().replace('"llama"', '"own"')
    auto = '{"auto_map": {"AutoConfig": "configuration_own.Own"},'
    (damaged_copy / "config.json").write_text(config.replace("{", auto, 1))
    error = error_of(load_causal_lm, damaged_copy)
    assert (
        f"{damaged_copy} needs Python code of its own: model.trust_remote_code=true runs it"
        in error
    )


def test_a_hub_id_that_is_not_cached_is_refused_without_a_network():
    error = error_of(load_tokenizer, "some-org/some-model")
    assert "some-org/some-model is no local folder, the hub cannot be reached" in error
    assert "`hf download some-org/some-model --local-dir DIR`" in error


def test_an_unknown_hub_id_is_explained():
    error = OSError("x is not a local folder and is not a valid model identifier listed on ...")
    assert "the hub has no model of that name that you may read" in why("org/x", error)

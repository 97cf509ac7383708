"""Why something could not be loaded is said of the folder, with what to do."""

import shutil
from dataclasses import replace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.models.load import ASSETS, load_causal_lm, load_tokenizer
from rlhf_cli.models.load_errors import why
from tests.support.configuration import composed


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped model, to be damaged."""
    return shutil.copytree(ASSETS / "tiny", tmp_path / "copy")


def model(path):
    return replace(composed().model, path=str(path))


def told_by(load, path) -> str:
    with pytest.raises(UserError) as error:
        load(model(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_without_a_tokenizer_names_the_key(copy):
    for file in copy.glob("tokenizer*"):
        file.unlink()
    assert (
        f"{copy} has no tokenizer files (such as tokenizer.json): set model.tokenizer"
        in told_by(load_tokenizer, copy)
    )


def test_a_file_in_place_of_a_folder(copy):
    assert "config.json is a file: give its folder" in told_by(load_tokenizer, copy / "config.json")


def test_a_folder_that_is_not_there(tmp_path):
    assert f"{tmp_path}/nosuch: no such folder" in told_by(load_tokenizer, tmp_path / "nosuch")


def test_a_folder_of_something_else(copy):
    (copy / "config.json").unlink()
    assert f"{copy} has no config.json: it is no folder of a model" in told_by(load_causal_lm, copy)


def test_weights_that_are_cut_short_are_named(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert f"{weights} is cut short or damaged: copy it again" in told_by(load_causal_lm, copy)


def test_a_model_with_code_of_its_own_names_the_key(copy):
    config = (copy / "config.json").read_text().replace('"llama"', '"own"')
    auto = '{"auto_map": {"AutoConfig": "configuration_own.Own"},'
    (copy / "config.json").write_text(config.replace("{", auto, 1))
    told = told_by(load_causal_lm, copy)
    assert f"{copy} needs Python code of its own: model.trust_remote_code=true runs it" in told


def test_a_hub_id_that_is_in_no_cache():
    told = told_by(load_tokenizer, "some-org/some-model")
    assert "some-org/some-model is no local folder, the hub cannot be reached" in told
    assert "`hf download some-org/some-model --local-dir DIR`" in told


def test_an_unknown_name_on_the_hub():
    error = OSError("x is not a local folder and is not a valid model identifier listed on ...")
    assert "the hub has no model of that name that you may read" in why("org/x", error)

"""Files of the user: experiments anywhere in any form, without settings that Hydra would run."""

import pickle
from pathlib import Path

import pytest

from rlhf_cli.config.command_line import compose_each
from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.schema.run import Config


def composed(*words: str) -> Config:
    found: list[Config] = []
    compose_each(list(words), found.append)
    return found[-1]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str) -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


PLAIN = "defaults:\n  - override /model: gpt2\nsft: {epochs: 7, batch: {size: 4}}\n"


@pytest.mark.parametrize("header", ["", "# what it is for\n", "# @package _global_\n"])
def test_a_file_is_an_experiment_with_any_header(header):
    write("my.yaml", header + PLAIN)
    cfg = composed("my.yaml", "sft.batch.size=5")
    assert (cfg.sft.epochs, cfg.sft.batch.size) == (7, 5)
    assert cfg.model.path == "openai-community/gpt2"


@pytest.mark.parametrize(
    "word", ["experiment=deep/down/my.yaml", "experiment=./deep/down/my.yaml", "deep/down/my.yaml"]
)
def test_an_experiment_may_be_named_by_its_path(word):
    write("deep/down/my.yaml", PLAIN)
    assert composed(word).sft.epochs == 7


def test_a_file_with_the_name_of_a_shipped_experiment_is_selected_by_its_suffix():
    write("smoke.yaml", "sft: {epochs: 9}\n")
    assert composed("experiment=smoke.yaml").sft.epochs == 9
    assert composed("experiment=smoke").sft.epochs == 1


def test_a_sweep_accepts_files():
    write("a.yaml", "sft: {epochs: 3}\n")
    write("b.yaml", "sft: {epochs: 4}\n")
    found: list[Config] = []
    compose_each(["-m", "experiment=a.yaml,b.yaml"], found.append)
    assert [cfg.sft.epochs for cfg in found] == [3, 4]
    assert [cfg.name for cfg in found] == ["default-experiment=a", "default-experiment=b"]


def test_presets_of_config_dir_need_no_header_and_override_shipped_ones():
    write("mine/experiment/smoke.yaml", "sft: {epochs: 8}\n")
    write("mine/config.yaml", "nothing: of ours\n")  # of another program
    assert composed("--config-dir", "mine", "experiment=smoke").sft.epochs == 8


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("my.yaml", "sft: {epoch: 3}\n", "my.yaml: unknown key 'sft.epoch': did you mean sft.ep"),
        ("my.yaml", "learning_rate: 3\n", "my.yaml: unknown key 'learning_rate': did you mean sft"),
        ("my.yaml", "- a\n", "my.yaml: a list; expected keys"),
        ("my.yaml", "sft: {epochs: 3\n", r'my.yaml", line 2'),
        ("my.yaml", "seed: seven\n", "seed=seven is not a whole number"),
        ("my.yaml", "hydra: {run: {dir: x}}\n", "my.yaml: hydra.run is Hydra's own"),
        ("my.yaml", "model: {_target_: os.system}\n", "unknown key 'model._target_'"),
    ],
)
def test_an_error_in_a_file_is_refused_with_the_name_of_the_file(path, text, expected):
    write(path, text)
    with pytest.raises(ConfigError) as error:
        composed(path)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_two_experiments_or_a_missing_file_are_refused():
    write("my.yaml", PLAIN)
    with pytest.raises(ConfigError, match="two experiments are given"):
        composed("my.yaml", "experiment=smoke")
    with pytest.raises(ConfigError, match=r"nothere\.yaml: no such file"):
        composed("nothere.yaml")


class TouchOnUnpickling:
    """An object whose pickle creates a file when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("opened").absolute(),))


CALLBACK = "{_target_: pandas.read_pickle, filepath_or_buffer: evil.pkl}"
HANDLER = "{handlers: {x: {(): pandas.read_pickle, filepath_or_buffer: evil.pkl}}, version: 1}"
HOSTILE_FILES = {
    "callbacks": f"hydra: {{callbacks: {{x: {CALLBACK}}}}}\n",
    "sweeper": f"hydra: {{sweeper: {{params: {{seed: '1,2', x: {CALLBACK}}}}}}}\n",
    "launcher": f"hydra: {{launcher: {CALLBACK}}}\n",
    "logging": f"hydra: {{job_logging: {HANDLER}}}\n",
    "searchpath": "hydra: {searchpath: ['pkg://antigravity']}\n",
    "environment": "hydra: {job: {env_set: {PYTHONPATH: /evil}}}\n",
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_files_of_config_dir_cannot_configure_hydra(name):
    Path("evil.pkl").write_bytes(pickle.dumps(TouchOnUnpickling()))
    write("mine/own.yaml", f"defaults: [config, _self_]\n{HOSTILE_FILES[name]}")
    with pytest.raises(ConfigError, match="hydra"):
        composed("--config-dir", "mine", "-cn", "own", "-m", "seed=1,2")
    assert not Path("opened").exists()


@pytest.mark.parametrize(
    "text",
    ["# @package hydra.callbacks\nx: " + CALLBACK, "# @package _global_.hydra.callbacks\nx: 1"],
)
def test_a_package_directive_that_names_hydra_is_refused(text):
    write("mine/data/own.yaml", text + "\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: @package .* its keys belong to Hydra"):
        composed("--config-dir", "mine", "data=own")


def test_defaults_that_place_a_group_into_hydra_are_refused():
    Path("evil.pkl").write_bytes(pickle.dumps(TouchOnUnpickling()))
    write("mine/other/evil.yaml", f"x: {CALLBACK}\n")
    write("mine/own.yaml", "defaults: [config, {other@hydra.callbacks: evil}, _self_]\n")
    with pytest.raises(ConfigError, match=r"^hydra\.callbacks is Hydra's own"):
        composed("--config-dir", "mine", "-cn", "own", "-m", "seed=1,2")
    assert not Path("opened").exists()


def test_a_file_may_set_the_parameters_of_the_sweeper():
    write(
        "mine/own.yaml", "defaults: [config, _self_]\nhydra: {sweeper: {params: {seed: '5,6'}}}\n"
    )
    found: list[Config] = []
    compose_each(["--config-dir", "mine", "-cn", "own", "-m"], found.append)
    assert [cfg.seed for cfg in found] == [5, 6]


def test_a_run_is_composed_once(monkeypatch):
    from hydra._internal.hydra import Hydra

    calls = []
    compose = Hydra.compose_config

    def counting_compose(self, *given, **named):
        calls.append(named)
        return compose(self, *given, **named)

    monkeypatch.setattr(Hydra, "compose_config", counting_compose)
    composed("seed=3")
    assert len(calls) == 1

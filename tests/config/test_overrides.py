"""Arguments of the command line before Hydra reads them."""

from pathlib import Path

import pytest

from rlhf_cli.config.overrides import spelled_out
from rlhf_cli.config.schema import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_folder").mkdir()
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        (["--cfg"], ["--cfg=job"]),
        (["-c", "seed=1"], ["--cfg=job", "seed=1"]),
        (["--cfg", "all"], ["--cfg", "all"]),
        (["--info", "seed=1"], ["--info=all", "seed=1"]),
        (["-i", "defaults"], ["-i", "defaults"]),
        (["model=org/name"], ["model=generic", "model.path='org/name'"]),
        (["model=model_folder"], ["model=generic", "model.path='model_folder'"]),
        (["model=gpt2"], ["model=gpt2"]),
        (
            ["hydra/launcher=basic", "hydra.sweeper.x=1"],
            ["hydra/launcher=basic", "hydra.sweeper.x=1"],
        ),
    ],
)
def test_arguments_are_translated_to_hydras_grammar(words, spelled):
    assert spelled_out(words) == spelled


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model=./nosuchdir", "model=./nosuchdir: no such folder"),
        ("model=a/b/c", "model=a/b/c: no such folder"),
        ("model=config.json", "is a file: give its folder"),
        ("model=qwen", "did you mean model=qwen2.5_0.5b or model=qwen3_0.6b?"),
        ("model=nosuch", "no preset and no folder (a hub model is org/name, or model.path=nosuch;"),
        ("model=null", "model=null is no choice: model is one of gemma3_1b, generic"),
        (
            "experiment=",
            "experiment= is no choice: experiment is one of flan, flan_supervised, instructgpt",
        ),
        ("hydra.run.dir=x", "hydra.run.dir is Hydra's own: only hydra.launcher and hydra.sweeper"),
        ("+hydra.callbacks.x=1", "hydra.callbacks.x is Hydra's own"),
        ("hydra/job_logging=default", "hydra/job_logging is Hydra's own"),
        ("--config", "unknown option --config: a file of your own stands alone: my.yaml"),
        ("--config-path=x", "unknown option --config-path"),
        ("--experimental-rerun=x.pickle", "unknown option --experimental-rerun"),
        ("sft", "cannot read 'sft': expected key=value: did you mean stage=sft?"),
        ("smoke", "did you mean experiment=smoke?"),
        ("=5", "expected key=value, and the key is missing"),
    ],
)
def test_an_invalid_argument_is_refused_with_a_suggestion(word, expected):
    with pytest.raises(ConfigError) as error:
        spelled_out([word])
    assert expected in str(error.value)

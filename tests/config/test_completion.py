"""Shell completion of everything besides keys."""

import pytest

from rlhf_cli.config.completion import own_words
from rlhf_cli.config.stage_table import STAGES


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("runs/one/sft", "runs/two", "elsewhere/three", "mine/experiment"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "try.yaml").write_text("")
    (tmp_path / "my.yaml").write_text("")
    (tmp_path / "items.csv").write_text("")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        ("rlhf ru", ["run"]),
        (
            "rlhf run stage=",
            [f"stage={name}" for name in ("all", *STAGES)],
        ),
        ("rlhf run stage=e", ["stage=evaluate"]),
        ("rlhf run ppo.kl.controller=", ["ppo.kl.controller=fixed", "ppo.kl.controller=adaptive"]),
        ("rlhf config resume=n", ["resume=never"]),
        ("rlhf run dry_run=t", ["dry_run=true"]),
        ("rlhf data check runtime.dtype=f", ["runtime.dtype=float32"]),
        ("rlhf run seed=1 --config-dir mine experiment=t", ["experiment=try"]),
        ("rlhf run experiment=my", ["experiment=my.yaml"]),
        ("rlhf run --config-dir m", ["mine/"]),
        ("rlhf run model=ti", ["model=tiny", "model=tiny_l", "model=tiny_xs"]),
        ("rlhf run model=./r", ["model=./runs/"]),
        ("rlhf run parents.sft=ru", ["parents.sft=runs/"]),
        ("rlhf run parents.sft=runs/one/", ["parents.sft=runs/one/sft/"]),
        ("rlhf run name=", ["name=one", "name=two"]),
        ("rlhf run runs_dir=elsewhere name=", ["name=three"]),
        ("rlhf run my", ["my.yaml"]),
        ("rlhf run --config-", ["--config-name", "--config-dir"]),
        ("rlhf show t", ["two"]),
        ("rlhf show one --t", ["--time"]),
        ("rlhf show one --", ["--time", "--json", "--runs-dir", "--help"]),
        ("rlhf show --runs-dir e", ["elsewhere/"]),
        ("rlhf show --runs-dir elsewhere ", ["three"]),
        ("rlhf show runs_dir=elsewhere t", ["three"]),
        ("rlhf show elsewhere/t", ["elsewhere/three/"]),
        ("rlhf report t", ["two"]),
        ("rlhf report one two --", ["--out", "--runs-dir", "--help"]),
        ("rlhf report one --out m", ["mine/", "my.yaml"]),
        ("rlhf report --runs-dir elsewhere ", ["three"]),
        ("rlhf lm-eval r", ["runs/"]),
        ("rlhf lm-eval runs/one/", ["runs/one/sft/", "runs/one/base"]),
        ("rlhf lm-eval runs/two/", []),
        ("rlhf lm-eval runs/one/sft mmlu --l", ["--limit"]),
        ("rlhf lm-eval runs/one/sft mmlu --tasks-dir m", ["mine/"]),
        ("rlhf data check --a", ["--all"]),
        ("rlhf data check i", ["items.csv"]),
        ("rlhf run --a", []),
        ("rlhf run sft.ep", None),
        ("rlhf run save.keep=", None),
        ("rlhf run nosuch.key=", None),
    ],
)
def test_completions_of_a_partial_command(typed, completions):
    assert own_words(typed) == completions

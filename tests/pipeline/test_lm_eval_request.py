"""The words of `rlhf lm-eval`: which model and tasks they mean, and what is refused with which words."""

import shutil
from pathlib import Path

import pytest

from rlhf_cli.artifacts.lm_eval import ModelScores, known_weights, write_scores
from rlhf_cli.artifacts.manifest import ArtifactError, read_manifest
from rlhf_cli.cli import main
from rlhf_cli.config.errors import UserError
from rlhf_cli.pipeline import lm_eval_request
from rlhf_cli.pipeline.lm_eval_request import find_model, read_request
from tests.support.lm_eval import TINY, policy, score
from tests.support.run_folders import finish


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder, with the run one: sft, ppo with best weights, a reward model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lm_eval_request, "find_spec", lambda name: name)
    run = policy(policy(tmp_path / "runs/one"), "ppo", best=True, system="Be brief.")
    finish(run, "rm")
    return tmp_path


@pytest.mark.parametrize(
    ("place", "name", "path"),
    [
        ("runs/one/ppo", "ppo", "runs/one/ppo/model"),
        ("one/ppo", "ppo", "runs/one/ppo/model"),
        ("runs/one/ppo/model", "ppo", "runs/one/ppo/model"),
        ("runs/one/ppo/best", "ppo/best", "runs/one/ppo/best"),
        ("one/sft/", "sft", "runs/one/sft/model"),
    ],
)
def test_a_policy_of_a_run_has_its_chat_template(place, name, path):
    found = find_model(place, Path("runs"))
    assert (found.name, found.path, found.run) == (name, path, Path("runs/one"))
    assert found.chat and found.title == f"one/{name}"
    assert found.system == (None if name == "sft" else "Be brief.")
    manifests = {stage: read_manifest(Path("runs/one") / stage) for stage in ("sft", "ppo")}
    assert found.weights == known_weights(manifests, name)


def test_the_base_model_of_a_run_is_that_of_its_manifests_and_has_no_chat_template():
    found = find_model("runs/one/base", Path("runs"))
    assert (found.name, found.path, found.run) == ("base", str(TINY), Path("runs/one"))
    assert not found.chat and found.system is None
    assert found.weights == read_manifest(Path("runs/one/sft")).parents["base"]


def test_another_model_is_of_no_run(here):
    shutil.copytree(TINY, "mine")
    for place, path in (("mine", "mine"), ("tiny_xs", str(TINY))):
        found = find_model(place, Path("runs"))
        assert (found.name, found.path, found.run, found.chat) == (place, path, None, False)


def test_the_options_and_their_defaults(here):
    plain = read_request(["one/ppo", "mmlu"])
    assert (
        plain.tasks == ("mmlu",) and plain.chat and plain.out == Path("runs/one/lm_eval/ppo.json")
    )
    assert (plain.limit, plain.shots, plain.batch, plain.tasks_dir) == (None, None, 8, None)
    (here / "mine").mkdir()
    words = (
        "--limit 5 one/base a,b --shots 0 c a --batch-size 2 --chat --tasks-dir mine --out x.json"
    )
    asked = read_request(words.split())
    assert asked.tasks == ("a", "b", "c") and asked.chat and not asked.model.chat
    assert (asked.limit, asked.shots, asked.batch) == (5, 0, 2)
    assert (asked.tasks_dir, asked.out) == (Path("mine"), Path("x.json"))
    assert not read_request(["one/ppo", "mmlu", "--no-chat"]).chat
    assert read_request(["tiny_xs", "mmlu"]).out is None


ALL = "runs/one/base, runs/one/sft, runs/one/ppo, runs/one/ppo/best"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", "needs a model and tasks: rlhf lm-eval runs/NAME/ppo hellaswag"),
        ("one/ppo", "needs the name of a task"),
        ("one mmlu", f"runs/one is a run: give a model of it ({ALL})"),
        ("one/rm mmlu", f"the stage rm, which has no language model: give one of {ALL}"),
        ("one/dpo mmlu", "the stage dpo of runs/one is not there"),
        ("one/raft mmlu", "the stage raft of runs/one did not finish"),
        ("one/sft/best mmlu", "runs/one/sft has no best/"),
        ("one/other mmlu", f"runs/one has no model 'other': give one of {ALL}"),
        ("nothing mmlu", "nothing is no model: neither a stage of a run, nor a folder"),
        ("a/b/c mmlu", "a/b/c is no model"),
        ("org/model mmlu", "the hub cannot be reached and its cache does not hold it"),
        ("code mmlu", "code needs Python code of its own, which is not run here"),
        ("scores mmlu", "has no language-model head"),
        ("pickled mmlu", "pickled has no model.safetensors"),
        ("one/ppo mmlu --limit 0", "0 is no whole number from 1 on"),
        ("one/ppo mmlu --shots -1", "--shots"),
        ("one/ppo mmlu --batch-size auto", "auto is no whole number"),
        ("one/ppo mmlu --tasks-dir no", "--tasks-dir no: no such folder"),
        ("one/ppo mmlu --limt 3", "no option --limt: did you mean --limit?"),
        ("one/ppo mmlu --out runs", "--out runs is a folder"),
        ("one/ppo mmlu --out one.txt/x", "one.txt/x cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(words, found, here, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (here / "runs/one/.raft.work").mkdir()
    (here / "one.txt").write_text("")
    configs = {
        "code": '{"auto_map": {"AutoModelForCausalLM": "x.Y"}, "model_type": "own_kind"}',
        "scores": '{"architectures": ["LlamaForSequenceClassification"]}',
        "pickled": '{"architectures": ["LlamaForCausalLM"]}',
    }
    for name, text in configs.items():
        (here / name).mkdir()
        (here / name / "config.json").write_text(text)
    shutil.copy(TINY / "model.safetensors", here / "code")
    assert main(["lm-eval", *words.split()]) == 2
    error = capsys.readouterr().err
    assert found in error and error.count("\n") == 1


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch, capsys):
    monkeypatch.setattr(lm_eval_request, "find_spec", lambda name: None)
    assert main(["lm-eval", "one/ppo", "mmlu"]) == 2
    assert capsys.readouterr().err == (
        "rlhf: rlhf lm-eval needs the lm-evaluation-harness: pip install 'rlhf-cli[lm-eval]'\n"
    )


def test_a_damaged_stage_is_refused(here):
    (here / "runs/one/ppo/model/config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="run the stage ppo again"):
        find_model("one/ppo", Path("runs"))


def test_a_base_model_that_was_changed_is_refused(here):
    policy(here / "runs/two", origin="tiny")
    with pytest.raises(UserError, match="was changed or moved since sft was made"):
        find_model("two/base", Path("runs"))


def test_a_run_whose_stages_name_no_base_model_has_none(here):
    finish(here / "runs/three", "sft")
    with pytest.raises(UserError, match="names its base model: give the model's folder"):
        find_model("three/base", Path("runs"))


def test_a_file_that_nothing_can_be_added_to_is_refused_before_anything_is_measured(here):
    kept = here / "runs/one/lm_eval/ppo.json"
    kept.parent.mkdir()
    kept.write_text("{")
    with pytest.raises(ArtifactError, match="holds no figures of rlhf lm-eval; remove it"):
        read_request(["one/ppo", "mmlu"])


def test_a_file_of_another_model_is_refused(here):
    write_scores(here / "kept.json", ModelScores(model="sft", weights="w", scores=[score()]))
    assert read_request(["one/sft", "mmlu", "--out", "kept.json"]).out == Path("kept.json")
    with pytest.raises(UserError, match=r"kept.json has figures of sft: give another file"):
        read_request(["one/ppo", "mmlu", "--out", "kept.json"])

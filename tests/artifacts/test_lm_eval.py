"""The file of what the lm-evaluation-harness measured: what it holds, what is added, what is refused."""

import json

import pytest

from rlhf_cli.artifacts.layout import lm_eval_file
from rlhf_cli.artifacts.lm_eval import (
    ModelScores,
    added,
    known_weights,
    read_scores,
    weights_hash,
    write_scores,
)
from rlhf_cli.artifacts.manifest import ArtifactError, read_manifest
from rlhf_cli.artifacts.store import verified
from tests.support.lm_eval import policy, score


def kept(*scores, weights: str = "w") -> ModelScores:
    return ModelScores(model="ppo", weights=weights, scores=list(scores))


def test_what_is_written_is_read(tmp_path):
    path = lm_eval_file(tmp_path, "ppo/best")
    assert path == tmp_path / "lm_eval" / "ppo-best.json"
    assert read_scores(path) is None
    found = kept(score("a", None, stderr=None, count=None, shots=None), score("b", limit=10))
    write_scores(path, found)
    assert read_scores(path) == found
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert json.loads(path.read_text())["scores"][1]["limit"] == 10


def test_a_task_that_is_measured_again_replaces_its_rows_and_others_stay():
    old = kept(score("a", 0.1), score("a", 0.2, metric="acc_norm"), score("b", 0.3))
    new = added(old, kept(score("a", 0.4), score("c", 0.5)))
    assert [(one.task, one.value) for one in new.scores] == [("b", 0.3), ("a", 0.4), ("c", 0.5)]


def test_figures_of_other_weights_do_not_stay():
    old = kept(score("b", 0.3), weights="earlier")
    assert added(old, kept(score("a", 0.4))) == kept(score("a", 0.4))
    assert added(None, kept(score("a", 0.4))) == kept(score("a", 0.4))


def test_the_tasks_are_those_asked_for():
    assert kept(score("a"), score("a", metric="f1"), score("b", group="a")).tasks == ["a"]


def test_weights_are_known_by_the_files_of_their_folder(tmp_path):
    run = policy(policy(tmp_path / "one", "sft"), "ppo", best=True)
    other = policy(tmp_path / "two", "ppo", best=True, note="else")
    manifests = {name: read_manifest(run / name) for name in ("sft", "ppo")}
    found = {name: known_weights(manifests, name) for name in ("base", "sft", "ppo", "ppo/best")}
    assert found["base"] == manifests["sft"].parents["base"]
    assert found["sft"] == found["ppo"] == weights_hash(manifests["ppo"])  # the same files
    assert found["ppo/best"] == weights_hash(manifests["ppo"], "best") != found["ppo"]
    assert weights_hash(read_manifest(other / "ppo"), "best") != found["ppo/best"]
    assert known_weights(manifests, "dpo") is None and known_weights({}, "base") is None


def test_the_file_leaves_the_stage_as_it_was_published(tmp_path):
    run = policy(tmp_path / "one", "ppo")
    before = verified(run / "ppo")
    write_scores(lm_eval_file(run, "ppo"), kept(score()))
    assert verified(run / "ppo") == before


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "holds no figures"),
        ("[]", "holds no figures"),
        ('{"version": 2}', "is of version 2, and this program reads version 1"),
        ('{"version": 1, "model": "ppo", "weights": "w", "scores": [{}]}', "holds no figures"),
        ('{"version": 1, "model": 3, "weights": "w", "scores": []}', "holds no figures"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_remedy(text, found, tmp_path):
    path = tmp_path / "ppo.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=f"{found}.*; remove it"):
        read_scores(path)


def test_a_value_that_is_no_number_is_refused(tmp_path):
    path = tmp_path / "ppo.json"
    write_scores(path, kept(score()))
    path.write_text(path.read_text().replace('"value": 0.5', '"value": "much"'))
    with pytest.raises(ArtifactError, match="holds no figures"):
        read_scores(path)

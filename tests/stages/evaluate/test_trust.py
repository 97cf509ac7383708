"""Verdicts from results and from the manifests of the stages before them."""

import json
from dataclasses import replace

import pytest
import torch

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.data.records import Message, Origin, Prompt
from rlhf_cli.evaluation.gains import win_rate_figures
from rlhf_cli.evaluation.metrics import EvalResult
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.stages.evaluate.trust import best_text, held_out_losses, quality_of, verdicts
from tests.support.artifacts import manifest


def result(shift, length=5, check=None):
    """Return 40 answers with scores about `shift`."""
    scores = torch.linspace(0, 1, 40) + shift
    return EvalResult(
        prompts=[Prompt((Message("user", "x"),), Origin("made in a test", 0))] * 40,
        answers=[
            Answer(
                prompt_ids=[1],
                ids=[i + int(100 * shift)] * (length + i % 3),
                text=f"{i} {shift}",
                finished=True,
            )
            for i in range(40)
        ],
        scores=scores,
        log_ratios=None,
        judged={} if check is None else {"check": torch.linspace(0, 1, 40) + check},
    )


@pytest.fixture
def inputs(tmp_path):
    """Return the folders of an SFT and a rm stage with metrics."""
    metrics = {"rm/accuracy": 0.7, "rm/accuracy_low": 0.45, "rm/accuracy_high": 0.9}
    for stage, known in (("sft", {}), ("rm", metrics | {"rm/length_baseline": 0.5})):
        found = replace(manifest(stage), metrics=known | {"rm/score_p999": 2.0})
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "manifest.json").write_text(found.seal().to_json())
    lines = [{"step": 1, "sft/eval_loss": 1.5}, {"step": 2}, {"step": 3, "sft/eval_loss": 1.7}]
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (tmp_path / "sft" / "metrics.jsonl").write_text(text)
    return {stage: tmp_path / stage for stage in ("sft", "rm")}


def judged(ppo, inputs, more=()):
    results = {"SFT": result(0.0, check=0.0), "PPO": ppo}
    figures = [*win_rate_figures(results, results["SFT"], against="SFT", seed=1), *more]
    (found,) = verdicts(results, {"sft": "SFT", "ppo": "PPO"}, inputs, figures, seed=1)
    return found


def test_each_policy_after_sft_has_a_verdict(inputs):
    found = judged(result(1.0, check=1.0), inputs)
    assert (found["policy"], found["stage"], found["verdict"]) == ("PPO", "ppo", "gained")
    worse = judged(result(1.0, check=-1.0), inputs)
    assert worse["verdict"] == "hacked"
    assert worse["doubt"] == [
        "SFT: its held-out loss rose from 1.500 to 1.700",
        "reward model: its accuracy [0.45, 0.90] may be chance",
    ]


def test_symptoms_are_of_the_answers_the_diversity_and_the_percentile_of_people(inputs):
    ead = [
        Figure(part="diversity", measure="ead/per_input", policy=name, value=value, count=9)
        for name, value in (("SFT", 0.8), ("PPO", 0.3))
    ]
    found = judged(result(1.9, length=30), inputs, ead)
    shown = {one["name"]: one["found"] for one in found["symptoms"]}
    assert shown["length"] and shown["samples alike"] and shown["extreme scores"]
    assert not shown["endings"] and not shown["repetition"]
    assert found["verdict"] == "hacked", "no judge, three symptoms"
    unknown = judged(result(1.9, length=30), {})
    shown = {one["name"]: one["found"] for one in unknown["symptoms"]}
    assert shown["samples alike"] is None and shown["extreme scores"] is None


def test_the_best_weights_are_named_where_a_manifest_has_them(tmp_path):
    found = replace(manifest("ppo"), metrics={"watch/best_iteration": 24.0})
    (tmp_path / "manifest.json").write_text(found.seal().to_json())
    assert best_text(tmp_path) == f"best weights: after iteration 24, {tmp_path}/best"
    assert best_text(tmp_path / "model") is None and best_text(None) is None


def test_without_an_sft_model_there_is_no_verdict():
    assert verdicts({"PPO": result(1.0)}, {"ppo": "PPO"}, {}, [], seed=1) == []


def test_what_manifests_do_not_have_is_not_known(tmp_path):
    assert quality_of({"rm/accuracy": 0.5}) is None
    assert held_out_losses(None) is None and held_out_losses(tmp_path) is None

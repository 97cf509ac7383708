"""What is watched while a policy learns, and how it is judged after: each key changes what it should."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from rlhf_cli.artifacts.results import read_results, select
from rlhf_cli.config.schema import PromptSet
from rlhf_cli.evaluation import judge_server
from rlhf_cli.report.run_state import metric_lines
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.evaluate.prompt_sets import UNSEEN, open_prompts
from tests.support.judge_server import by_text, serving
from tests.support.small_stages import changed, little, work

VALUES = {
    "ppo.total_episodes": 24,
    "ppo.batch.rollout": 4,
    "rloo.total_episodes": 16,
    "rloo.batch.rollout": 8,
    "ppo.watch.every": 2,
    "rloo.watch.every": 1,
    "ppo.watch.prompts": 3,
    "rloo.watch.prompts": 3,
    "evaluation.prompts": 10,
    "evaluation.best_of_n": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with SFT, reward model, and policies that were watched."""
    folder = tmp_path_factory.mktemp("watched")
    for stage in ("sft", "rm", "ppo", "rloo"):
        work(stage, folder, VALUES)
    return folder


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_weights_are_the_same_with_the_watch_and_without(folder, tmp_path):
    off = {"ppo.watch.every": None, "rloo.watch.every": None}
    for stage in ("ppo", "rloo"):
        metrics = work(stage, tmp_path, VALUES | off, parents=folder)
        assert not (tmp_path / stage / "watch.jsonl").exists()
        assert not (tmp_path / stage / "best").exists()
        assert not [name for name in metrics if name.startswith("watch/")]
        one, other = (weights(place / stage / "model") for place in (folder, tmp_path))
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("stage", "looks"), [("ppo", [0, 2, 4, 6]), ("rloo", [0, 1, 2])])
def test_best_is_the_row_with_the_highest_score_and_no_symptom(folder, stage, looks):
    rows = list(metric_lines(folder / stage / "watch.jsonl"))
    assert [row["iteration"] for row in rows] == looks
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5) and not rows[0]["best"]
    assert {"score", "gold", "length", "eos_rate", "repetition", "ead"} <= set(rows[-1])
    fit = [row for row in rows[1:] if not row["symptoms"]]
    assert (folder / stage / "best").exists() == bool(fit)
    if fit:
        top = max(fit, key=lambda row: row["score"])
        assert [row for row in rows if row["best"]][-1] == top
        is_last = top["iteration"] == looks[-1]
        best, last = (weights(folder / stage / name) for name in ("best", "model"))
        assert all(torch.equal(best[name], last[name]) for name in best) == is_last


@pytest.fixture(scope="module")
def evaluated(folder, tmp_path_factory):
    """Return a function that evaluates the run with other values, once for each."""
    known = {}

    def evaluate(name, values=None):
        if name not in known:
            place = tmp_path_factory.mktemp(name)
            work("evaluate", place, VALUES | (values or {}), parents=folder)
            known[name] = place / "evaluate"
        return known[name]

    return evaluate


def table_of(place):
    return json.loads((place / "table.json").read_text())


def answers_of(place, model):
    rows = [json.loads(text) for text in (place / "answers.jsonl").open()]
    return [row for row in rows if row["model"] == model]


def wins(ours, theirs, value):
    """Return the share of wins, by hand."""
    won = [
        0.5
        if all(mine[key] == other[key] for key in ("response", "finished"))
        or value(mine) == value(other)
        else float(value(mine) > value(other))
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return sum(won) / len(won)


def test_win_rates_are_against_the_model_that_is_named(evaluated):
    for name, label in (("plain", "SFT"), ("against_base", "base")):
        values = {} if label == "SFT" else {"evaluation.against": "base"}
        place = evaluated(name, values)
        theirs, ours = answers_of(place, label), answers_of(place, "PPO")
        rates = {
            one.judge: one
            for one in select(
                read_results(place).figures, measure="win_rate", policy="PPO", prompts=None
            )
            if one.group == label
        }
        assert rates["gold"].value == pytest.approx(wins(ours, theirs, lambda one: one["gold"]))
        assert rates["score"].value == pytest.approx(wins(ours, theirs, lambda one: one["score"]))
        assert rates["gold"].low <= rates["gold"].value <= rates["gold"].high
        assert rates["gold"].count == 10
        row = table_of(place)["rows"]["PPO"]
        assert row["win_rate/gold"][0] == rates["gold"].value
        assert row["win_rate"][0] == rates["score"].value


def test_without_gold_nothing_of_it_is_shown_nor_judges(evaluated):
    place = evaluated("no_gold", {"evaluation.gold": False})
    assert not {"gold", "right", "rude", "win_rate/gold"} & set(table_of(place)["rows"]["PPO"])
    assert "gold" not in answers_of(place, "PPO")[0]
    found = read_results(place)
    assert {one.judge for one in select(found.figures, part="win_rates")} == {"score"}
    assert found.verdicts[0]["verdict"] != "gained"


def test_judges_score_the_same_answers(evaluated, folder):
    """The reward model itself as a judge agrees with the score; it is named by its path."""
    other = str(folder / "another")
    values = {"parents.check": str(folder / "rm" / "model"), "evaluation.judges": [other]}
    shutil.copytree(folder / "rm" / "model", other)
    place = evaluated("judged", values)
    for row in answers_of(place, "PPO"):
        assert row["judges"]["check"] == row["judges"][other] == pytest.approx(row["score"])
    rows = table_of(place)["rows"]["PPO"]
    assert rows["win_rate/check"] == rows[f"win_rate/{other}"] == rows["win_rate"]
    assert "by check it wins" in str(read_results(place).verdicts[0]["evidence"])


SHORT = 30  # characters: in the opinion of the judge an answer below abstains


def of_question(body):
    """Return the two answers that a judge is asked about."""
    text = body["messages"][0]["content"]
    first, second = text.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
    return first, second.split("\n\nWhich answer")[0]


def test_a_language_model_at_a_server_judges_in_both_orders(evaluated):
    """It prefers the longer answer, and the first of two of equal length; short answers abstain to it."""

    def answer(body, headers):
        text = body["messages"][0]["content"]
        if "Answer B:" not in text:
            given = text.split("Answer:\n")[1].split("\n\nDoes the answer")[0]
            return 200, by_text("A" if (len(given) < SHORT) == text.endswith("B for no.") else "B")
        first, second = of_question(body)
        return 200, by_text("A" if len(first) >= len(second) else "B")

    with serving(answer) as url:
        place = evaluated("asked", {"judge.model": "m", "judge.url": url})
    ours, theirs = answers_of(place, "PPO"), answers_of(place, "SFT")
    expected = wins(ours, theirs, lambda one: len(one["response"]))
    assert table_of(place)["rows"]["PPO"]["win_rate/judge"][0] == pytest.approx(expected)
    found = read_results(place)
    assert not [line for line in found.missing if "judge" in line]
    (same,) = select(found.figures, measure="same_in_both_orders")
    others = [answers_of(place, name) for name in ("base", "PPO", "RLOO")]
    pairs = [
        (mine["response"], other["response"])
        for some in others
        for mine, other in zip(some, theirs, strict=True)
        if mine["response"] != other["response"] or mine["finished"] != other["finished"]
    ]
    rates = select(found.figures, part="abstention", measure="rate", judge="judge")
    short = {
        name: [len(row["response"]) < SHORT for row in answers_of(place, name)]
        for name in ("base", "SFT", "PPO", "RLOO")
    }
    assert {one.policy: one.value for one in rates} == pytest.approx(
        {name: sum(some) / len(some) for name, some in short.items()}
    )
    assert any(0 < one.value < 1 for one in rates)
    told_apart = [len(one) != len(other) for one, other in pairs]
    assert same.count == len(pairs) and same.value == pytest.approx(sum(told_apart) / len(pairs))
    assert "by judge it wins" in str(found.verdicts[0]["evidence"])


def test_a_judge_that_cannot_be_reached_is_named_and_the_rest_is_there(evaluated, monkeypatch):
    monkeypatch.setattr(judge_server, "FIRST_PAUSE", 0.0)
    with serving(lambda body, headers: (200, by_text("A"))) as url:
        pass
    place = evaluated("unreachable", {"judge.model": "m", "judge.url": url})
    found = read_results(place)
    (line,) = [line for line in found.missing if "judge" in line]
    assert (
        line.startswith(f"judge.url={url} did not answer (") and "figures by m are missing" in line
    )
    assert not select(found.figures, judge="judge")
    assert table_of(place)["rows"] == table_of(evaluated("plain"))["rows"]


def test_prompts_unlike_those_of_training_are_a_set_of_their_own(evaluated, tmp_path):
    """What training asked too is left out and counted; the data's responses are compared with."""
    context = open_context(changed(little(), VALUES))
    trained = [one.record.messages[0].content for one in context.encoded("demonstrations").train]
    rows = [{"prompt": f"What is {n} and {n}?", "response": f"It is {2 * n}."} for n in range(6)]
    rows += [{"prompt": text, "response": "x"} for text in trained[:2]]
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = evaluated("other", {"evaluation.ood": [PromptSet(path=str(file), name="sums")]})
    answers, found = answers_of(place, "PPO"), read_results(place)
    assert [row.get("prompts") for row in answers] == [None] * 10 + ["sums"] * 6
    assert {row["reference"] for row in answers[10:]} == {f"It is {2 * n}." for n in range(6)}
    assert found.missing[0] == "sums: 2 of 8 prompts left out, because training asks them too"
    for policy, row in table_of(evaluated("plain"))["rows"].items():
        for name in ("gold", "score", "length"):
            assert table_of(place)["rows"][policy][name] == pytest.approx(row[name], abs=1e-4)
    rates = select(found.figures, part="win_rates", prompts="sums", group="reference")
    assert {one.policy for one in rates} >= {"base", "SFT", "PPO", "RLOO"}
    own = {"part": "generalisation", "measure": "value_gap", "policy": "PPO", "judge": "score"}
    (gap,) = select(found.figures, prompts="sums", **own)
    score = [row["score"] for row in answers]
    inside = [score[i] for i in open_prompts(context).familiar]
    assert 0 < len(inside) < 10, "of tasks that are trained on"
    assert gap.value == pytest.approx(sum(inside) / len(inside) - sum(score[10:]) / 6, abs=1e-5)
    assert gap.count == 6 and select(found.figures, prompts=UNSEEN, **own)


def test_the_best_weights_have_a_column_where_the_last_ones_show_two_symptoms(folder, tmp_path):
    """They are copies of SFT's here, so they answer as SFT does."""
    shutil.copytree(folder, tmp_path / "run")
    place = tmp_path / "run" / "ppo"
    shutil.rmtree(place / "best", ignore_errors=True)
    shutil.copytree(folder / "sft" / "model", place / "best")
    rows = list(metric_lines(place / "watch.jsonl"))
    rows[-1]["symptoms"] = ["length", "endings"]
    (place / "watch.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    work("evaluate", tmp_path / "new", VALUES, parents=tmp_path / "run")
    found = tmp_path / "new" / "evaluate"
    texts = {
        name: [row["response"] for row in answers_of(found, name)] for name in ("SFT", "PPO, best")
    }
    assert texts["PPO, best"] == texts["SFT"] != []
    assert "RLOO, best" not in table_of(found)["rows"]


def test_the_curve_of_best_of_n_begins_at_one_sample_and_ends_at_the_table(evaluated):
    """The last point is the mean score of the closing table; a curve of the score never falls."""
    place = evaluated("best_of_4", {"evaluation.best_of_n": 4})
    curve = read_results(place).curves["best_of_n"]
    assert [point["n"] for point in curve] == [1, 2, 4]
    assert curve[0]["kl"] == 0 and curve[2]["kl"] == pytest.approx(0.6363, abs=1e-4)
    row = table_of(place)["rows"]["SFT, best of 4"]
    assert curve[-1]["score"] == pytest.approx(row["score"][0], abs=1e-4)
    assert curve[-1]["gold"] == pytest.approx(row["gold"][0], abs=0.2)
    scores = [point["score"] for point in curve]
    assert scores == sorted(scores) and scores[0] < scores[-1]

"""Figures of the lm-evaluation-harness on the screen and on the page, and those of earlier weights."""

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_cli.artifacts.layout import lm_eval_file
from rlhf_cli.artifacts.lm_eval import ModelScores, known_weights, read_scores, write_scores
from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.cli import main
from rlhf_cli.evaluation.lm_request import EvaluatedModel, LmEvalRequest
from rlhf_cli.report.lm_eval_table import (
    harness_blocks,
    keep_and_print,
    notes_of,
    print_request,
    value_of,
)
from rlhf_cli.report.page_content import content_of
from rlhf_cli.report.run_files import read_files
from rlhf_cli.report.run_groups import grouped
from rlhf_cli.report.run_state import read_run
from tests.support.lm_eval import policy, score
from tests.support.run_files import run_of
from tests.support.studies import study

BASE = {"name": "base", "chat": False}
LONG = "mmlu_high_school_government_and_politics"


def request(out: Path | None = None, **model) -> LmEvalRequest:
    model = {
        "name": "ppo",
        "path": "m",
        "run": Path("runs/one"),
        "weights": "w",
        "chat": True,
    } | model
    return LmEvalRequest(
        model=EvaluatedModel(**model), tasks=("mine",), tasks_dir=None, limit=None, shots=None, batch=8,
        chat=True, out=out,
    )  # fmt: skip


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_the_screen_and_has_every_figure(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = [
        score("mine", 0.41234, stderr=0.0151, count=1319, shots=5),
        score(
            LONG, 23.456, stderr=None, metric="exact_match", filter="flexible-extract", group="mmlu"
        ),
        score("lambada", None, metric="perplexity", higher_is_better=False),
    ]
    keep_and_print(request(), shown)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    text = "".join(printed.split())
    assert "0.412±0.015" in text and "1,319" in text and "23.5" in text
    assert "one/ppo: lm-evaluation-harness 0.4.13\n" in printed
    assert "perplexity" in text and "(lower" in text
    if width == 140:
        assert f"  {LONG}" in printed and "exact_match, flexible-extract" in printed


def test_values_have_as_many_decimals_as_their_size_deserves():
    assert value_of(0.41234, 0.0151) == "0.412 ± 0.015"
    assert value_of(12.345, 1.25) == "12.3 ± 1.2"
    assert value_of(0.5, None) == "0.500" and value_of(None, None) == "-"


@pytest.mark.parametrize(
    ("chat", "model", "found"),
    [
        (True, {}, "one/ppo: chat template on, because it is a policy"),
        (
            False,
            BASE,
            "one/base: chat template off, because it is no policy",
        ),
        (False, {}, "one/ppo: chat template off, as asked"),
        (True, BASE, "one/base: chat template on, as asked"),
    ],
)
def test_the_command_prints_whether_the_chat_template_is_applied(chat, model, found, capsys):
    asked = replace(request(), chat=chat, model=replace(request().model, **model))
    print_request(asked)
    assert found in capsys.readouterr().out


def test_a_limit_and_inputs_that_were_cut_are_noted():
    notes = list(notes_of([score("a", limit=10), score("b", cut=3)]))
    assert any("the first 10 questions" in note for note in notes)
    assert any(note.startswith("b: 3 questions are longer") for note in notes)
    assert len(list(notes_of([score()]))) == 1


def test_figures_are_kept_beside_the_stage_and_added_to(tmp_path, capsys):
    out = lm_eval_file(tmp_path, "ppo")
    keep_and_print(request(out), [score("a", 0.1)])
    keep_and_print(request(out), [score("b", 0.2)])
    assert [one.task for one in read_scores(out).scores] == ["a", "b"]
    assert f"kept in {out}" in capsys.readouterr().out
    keep_and_print(request(out, weights="other"), [score("c", 0.3)])
    assert [one.task for one in read_scores(out).scores] == ["c"]
    assert "figures of earlier weights are removed: a, b" in capsys.readouterr().out
    keep_and_print(request(None, run=None), [score("c", 0.3)])
    assert "not kept" in capsys.readouterr().out


def section(*runs) -> dict | None:
    found = content_of(runs, study())["sections"]
    return next((one for one in found if one["title"] == "lm-evaluation-harness"), None)


def test_the_page_has_a_column_per_model_and_a_row_per_task_and_metric():
    run = run_of(
        stages={"sft": {}, "ppo": {}},
        harness={
            "ppo/best": [score("a", 0.7)],
            "ppo": [score("a", 0.6), score("a", 0.65, metric="acc_norm"), score("g.x", group="g")],
            "base": [score("a", 0.25, chat=False, shots=5, count=1200)],
        },
    )
    table, parts, notes = section(run)["blocks"]
    assert table["columns"] == [["base"], ["ppo"], ["ppo/best"]]
    first, second = sorted(table["rows"], key=lambda row: row["head"])
    assert first["head"] == ["a", "acc"] and second["head"] == ["a", "acc_norm"]
    assert first["cells"] == [
        ["0.250 ± 0.100", "n 1,200 · 5 shots · no chat"],
        ["0.600 ± 0.100", "n 24 · 0 shots · chat"],
        ["0.700 ± 0.100", "n 24 · 0 shots · chat"],
    ]
    assert second["cells"] == [["-"], ["0.650 ± 0.100", "n 24 · 0 shots · chat"], ["-"]]
    assert parts["kind"] == "fold" and parts["blocks"][0]["rows"][0]["head"] == ["g.x", "acc"]
    assert notes["lines"][:2] == ["lm_eval 0.4.13", "transformers 5.0.0"]


def test_a_run_without_such_figures_has_no_section():
    assert section(run_of()) is None


def test_runs_that_differ_stand_beside_each_other_and_seeds_are_a_mean():
    other = {"sft": {"config": {"sft.epochs": 3}}}
    one = run_of("one", harness={"sft": [score("a", 0.5)]})
    two = run_of("two", stages=other, harness={"sft": [score("a", 0.6)]})
    (table, *_) = section(one, two)["blocks"]
    assert table["columns"] == [["sft", "one"], ["sft", "two"]]
    again = run_of("again", seed=2, harness={"sft": [score("a", 0.6)]})
    (table, *_) = section(one, again)["blocks"]
    (cells,) = (row["cells"] for row in table["rows"])
    assert cells[0][0].startswith("0.550 [-") and cells[0][1:] == [
        "n 48 · 0 shots · chat",
        "2 runs",
    ]
    (table, *_) = harness_blocks(
        grouped([one, run_of("x", seed=2, harness={"sft": [score("a", shots=5)]})])
    )
    assert table["rows"][0]["cells"] == [["-", "runs asked in different ways"]]


def test_figures_of_different_versions_of_a_task_are_noted():
    run = run_of(harness={"sft": [score("a")], "base": [score("a", task_version="2.0")]})
    assert any("different versions" in note for note in section(run)["blocks"][-1]["lines"])


def test_figures_of_weights_that_are_there_no_more_are_not_shown(tmp_path):
    run = policy(tmp_path / "one", "ppo")
    manifests = {"ppo": read_manifest(run / "ppo")}
    for model in ("ppo", "base"):
        weights = known_weights(manifests, model)
        found = ModelScores(model=model, weights=weights, scores=[score("a"), score("b")])
        write_scores(lm_eval_file(run, model), found)
    before = read_run(run, ("ppo",))
    assert set(before.harness) == {"ppo", "base"} and before.problems == []
    assert before.as_json()["lm_eval"]["ppo"]["scores"][1]["task"] == "b"
    (run / "ppo").rename(tmp_path / "old")
    policy(run, "ppo", note="made again")
    after = read_run(run, ("ppo",))
    assert set(after.harness) == {"base"}
    (problem,) = after.problems
    assert "ppo.json is of other weights than ppo has now" in problem
    assert f"`rlhf lm-eval {run}/ppo a b`" in problem


def test_rlhf_show_prints_the_figures_of_the_weights_that_are_there(tmp_path, capsys):
    run = policy(tmp_path / "one", "ppo", best=True)
    manifests = {"ppo": read_manifest(run / "ppo")}
    for model, chat in (("ppo/best", True), ("base", False)):
        weights = known_weights(manifests, model)
        found = ModelScores(model=model, weights=weights, scores=[score(f"of_{model}", chat=chat)])
        write_scores(lm_eval_file(run, model), found)
    stale = ModelScores(model="ppo", weights="others", scores=[score("stale", 0.987)])
    write_scores(lm_eval_file(run, "ppo"), stale)
    assert main(["show", str(run)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("one/base: lm-eval") < printed.index("one/ppo/best: lm-eval")
    rows = [text.split() for text in printed.splitlines() if "of_" in text]
    assert [(row[0], row[-1]) for row in rows] == [("of_base", "off"), ("of_ppo/best", "on")]
    assert "0.987" not in printed and "ppo.json is of other weights than ppo has now" in printed


def test_a_file_that_cannot_be_read_is_a_problem_of_the_run(tmp_path):
    run = policy(tmp_path / "one", "ppo")
    path = lm_eval_file(run, "ppo")
    path.parent.mkdir()
    path.write_text("{")
    found = read_files(read_run(run, ("ppo",)))
    assert found.state.harness == {} and "holds no figures of rlhf lm-eval" in found.problems[0]

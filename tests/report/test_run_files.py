"""What the page reads of a run: lines and JSON of its finished stages, and what it cannot read."""

import json

from rlhf_cli.artifacts.results import Results, write_results
from rlhf_cli.report.run_files import read_files
from rlhf_cli.report.run_state import read_run
from tests.support.run_files import figure
from tests.support.run_folders import finish

STAGES = ("sft", "rm", "ppo", "evaluate", "best_of_n")


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(folder, results: Results) -> str:
    folder.mkdir()
    write_results(folder, results)
    return (folder / "results.json").read_text()


def test_lines_and_reports_of_finished_stages_are_read(tmp_path):
    asked = {"model": "SFT", "prompt": "\u2028", "response": "\ud800"}
    run = finish(tmp_path / "one", "rm", files={"report.json": '{"ece": 0.5}'})
    watch = lines({"iteration": 0}, {"iteration": 8})
    finish(run, "ppo", files={"watch.jsonl": watch, "metrics.jsonl": lines({"step": 1})})
    finish(run, "evaluate", files={"answers.jsonl": lines(asked)})
    found = read_files(read_run(run, STAGES))
    assert found.reward_report == {"ece": 0.5}
    assert found.watch["ppo"] == [{"iteration": 0}, {"iteration": 8}] and found.watch["rm"] == []
    assert found.metrics["ppo"] == [{"step": 1}] and found.answers == [asked]
    assert found.problems == [] and found.seed == 1


def test_the_curve_of_the_evaluation_comes_before_that_of_the_stage(tmp_path):
    run = finish(tmp_path / "one", "best_of_n", files={"curve.json": '[{"n": 1}]'})
    assert read_files(read_run(run, STAGES)).best_of_n == [{"n": 1}]
    text = written(tmp_path / "made", Results(curves={"best_of_n": [{"n": 2}]}))
    finish(run, "evaluate", files={"results.json": text})
    assert read_files(read_run(run, STAGES)).best_of_n == [{"n": 2}]


def test_results_are_read_and_those_of_another_version_are_a_problem(tmp_path):
    text = written(tmp_path / "made", Results(figures=[figure(value=0.5)]))
    new = finish(tmp_path / "new", "evaluate", files={"results.json": text})
    assert read_files(read_run(new, STAGES)).results.figures == [figure(value=0.5)]
    older = {"results.json": text.replace('"version": 1', '"version": 0'), "answers.jsonl": "{}"}
    run = finish(tmp_path / "old", "evaluate", files=older)
    old = read_files(read_run(run, STAGES))
    assert old.results == Results() and old.answers == [{}]
    (problem,) = old.problems
    assert "is of version 0, and this program reads version 1; run the stage eval" in problem


def test_a_report_that_is_no_json_is_a_problem(tmp_path):
    run = finish(tmp_path / "one", "rm", files={"report.json": "{"})
    found = read_files(read_run(run, STAGES))
    assert found.reward_report == {} and found.problems == [
        f"{run}/rm/report.json cannot be read: run its stage again"
    ]

"""`rlhf show`: the content of a folder, or the reason why it holds no run."""

import fcntl
import json
import os
import shlex
import subprocess
import threading
from pathlib import Path

import pytest

from rlhf_cli.artifacts.lock import locked
from rlhf_cli.cli import main
from rlhf_cli.report.show import command_for
from tests.support.run_folders import finish

HOSTILE = "\x1b]0;owned\x07\x1b[2J[/]"
TABLE = {
    "title": f"Evaluation on {HOSTILE}",
    "rows": {f"PPO{HOSTILE}": {f"gold{HOSTILE}": [0.9, 0.8, 0.95], "kl": [float("inf")] * 3}},
    "notes": [f"a note {HOSTILE}"],
}


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Return an empty folder, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def page(capsys, *words: str) -> str:
    assert main(["show", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refusal(capsys, *words: str) -> str:
    assert main(["show", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    return shown.err


def test_show_distinguishes_a_run_a_stage_and_a_folder_of_runs(empty_folder, capsys):
    finish(empty_folder / "runs/one", metrics={"sft/loss": 0.5, "sft/extra": 0.25})
    run = page(capsys, "one")
    assert "run one in runs/one" in run and "sft/loss 0.5" in run and "sft/extra" not in run
    assert page(capsys, "runs/one") == run
    stage = page(capsys, "runs/one/sft")
    assert "stage sft in runs/one/sft" in stage and "sft/extra  0.25" in stage
    listed = "one  sft\n"
    assert page(capsys) == page(capsys, "runs") == page(capsys, "--runs-dir", "runs") == listed
    assert page(capsys, "--runs-dir=runs") == page(capsys, "runs_dir=runs") == listed


def test_data_without_a_hash_is_named_once(empty_folder, capsys):
    data = {"data.template": {"auto": "auto"}, "demonstrations": {"a.jsonl": "0123456789abcdef"}}
    finish(empty_folder / "runs/one", data=data)
    shown = page(capsys, "one")
    assert "data.template auto\n" in shown and "demonstrations a.jsonl  0123456789ab\n" in shown


def test_runs_in_another_folder_are_found_by_name(empty_folder, capsys):
    finish(empty_folder / "else where/one")
    assert "run one in else where/one" in page(capsys, "one", "--runs-dir", "else where")
    assert "runs/ has no runs; --runs-dir DIR" in refusal(capsys, "one")


@pytest.mark.parametrize("place", ["..", "/", "empty", "file"])
def test_a_folder_without_a_run_is_refused(empty_folder, capsys, place):
    (empty_folder / "work/empty").mkdir(parents=True)
    (empty_folder / "work/file").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(empty_folder / "work/empty")
        (empty_folder / "work/empty/empty").mkdir()
        assert "no run" in refusal(capsys, place if place != "/" else str(empty_folder))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["one", "--tme"], "rlhf show has no option --tme: did you mean --time?"),
        (["--runsdir", "x"], "no option --runsdir: did you mean --runs-dir?"),
        (["-x"], "no option -x: rlhf show --help lists them"),
        (["--runs-dir"], "expected one argument"),
        (["--time"], "--time needs a run"),
        (["runs", "--time"], "runs is a folder of runs: give one of them (one)"),
        (["runs/one/sft", "--time"], "runs/one/sft is the stage sft"),
        (["on"], "there is no run 'on': did you mean one?"),
    ],
)
def test_invalid_arguments_of_show_are_refused_in_one_line(empty_folder, capsys, words, expected):
    finish(empty_folder / "runs/one")
    assert expected in refusal(capsys, *words)


def test_the_json_of_show_is_strict_and_has_the_content_of_the_page(empty_folder, capsys):
    run = finish(empty_folder / "runs/one", metrics={"sft/loss": None})
    finish(run, "evaluate", table=TABLE, metrics={"x": 1.0})
    (run / ".rm.work").mkdir()

    def read(*words):
        return json.loads(page(capsys, *words, "--json"), parse_constant=pytest.fail)

    found = read("one")
    assert found["stages"]["sft"]["metrics"] == {"sft/loss": None}
    assert next(iter(found["table"]["rows"].values()))["kl"] == [None, None, None]
    assert found["problems"] == ["rm did not finish; its files are in runs/one/.rm.work"]
    assert found["at_work"] is None
    assert read() == {
        "folder": "runs",
        "runs": [{"name": "one", "finished": ["sft", "evaluate"]}],
    }
    assert read("runs/one/sft")["step"] == 7


def work(run: Path, stage: str, *lines: dict, cut_off: str = "") -> None:
    folder = run / f".{stage}.work"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines) + cut_off)


def test_a_running_stage_is_shown_with_its_progress(empty_folder, capsys):
    run = finish(empty_folder / "runs/one")
    first_line = {"time": 0.0, "total_steps": 84}
    work(run, "rm", first_line, {"step": 12, "time": 65.0}, cut_off='{"step": 13, "ti')
    assert "problem: rm did not finish; its files" in page(capsys, "one")
    with locked(run, "rlhf run name=one"):
        shown, listed = page(capsys, "one"), page(capsys)
        at_work = json.loads(page(capsys, "one", "--json"))["at_work"]
    assert "running: rm, step 12 of 84 after 1:05" in shown
    assert "rlhf run name=one)" in shown and "since 2" in shown and "did not finish" not in shown
    assert listed == "one  sft  (running: rm, step 12 of 84 after 1:05)\n"
    assert (at_work["step"], at_work["holder"]["command"]) == (12, "rlhf run name=one")
    assert "running" not in page(capsys, "one")


def test_a_run_with_only_a_lock_is_shown_while_the_lock_is_held(empty_folder, capsys):
    finish(empty_folder / "runs/one")
    with locked(empty_folder / "runs/two", "rlhf run name=two"):
        assert page(capsys) == "one  sft\ntwo  nothing finished  (running: before its next stage)\n"
        assert "running: before its next stage" in page(capsys, "two")
    assert page(capsys) == "one  sft\n"
    assert "rlhf: runs/two holds no stage of a run yet" in refusal(capsys, "two")


def test_a_lock_held_briefly_by_show_does_not_stop_a_run(empty_folder):
    """`rlhf show` takes the lock of a run for a moment to see whether it is held."""
    run = finish(empty_folder / "runs/one")
    handle = os.open(run / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_SH)
    threading.Timer(0.02, os.close, [handle]).start()
    with locked(run, "rlhf run"):
        pass


def test_control_sequences_in_names_and_values_are_escaped(empty_folder, capsys):
    run = finish(
        empty_folder / f"runs/ru{HOSTILE[:-3]}n",
        metrics={f"loss{HOSTILE}": 1.0},
        data={f"demonstrations{HOSTILE}": {f"a{HOSTILE}.jsonl": "\x1b[2J"}},
        origins={"base": HOSTILE},
        parents={"base": "d"},
        version=HOSTILE,
        finished="\x1b[2J",
    )
    finish(run, "evaluate", table=TABLE)
    work(run, "rm", {})
    (run / ".rm.work/failure.json").write_text(json.dumps({"reason": HOSTILE}))
    other = finish(empty_folder / "runs/other", config={f"k{HOSTILE}": HOSTILE})
    with locked(other, HOSTILE):
        pages = [page(capsys, *w) for w in ([], [str(run)], [str(run / "sft")], ["other"])]
    pages.append(page(capsys, str(run), "other"))
    pages += [page(capsys, *w, "--json") for w in ([], [str(run)], [str(run), "other"])]
    pages.append(refusal(capsys, f"no{HOSTILE}"))
    for shown in pages:
        assert "\x1b" not in shown and "\x07" not in shown
    assert "a note \\x1b]0;owned\\x07\\x1b[2J[/]" in pages[1]


def test_an_invalid_table_is_refused_in_one_line(empty_folder, capsys):
    finish(empty_folder / "runs/one", "evaluate", table={"rows": 3})
    assert "table.json is no table of this program" in refusal(capsys, "one")


@pytest.mark.parametrize("name", ["my first run", "it's", "-x", "a;b"])
@pytest.mark.parametrize("runs_dir", ["runs", "else where/runs"])
def test_the_command_that_is_printed_works(empty_folder, capsys, name, runs_dir):
    run = finish(Path(runs_dir) / name)
    program, *words = shlex.split(command_for(run))
    assert program == "rlhf" and words[0] == "show"
    assert f"run {name} in" in page(capsys, *words[1:])


def test_many_runs_are_named_by_a_pattern_that_no_other_run_matches(tmp_path):
    runs = [tmp_path / "my runs" / f"a=[{number}]" for number in range(13)]
    for run in runs:
        run.mkdir(parents=True)
    listed = subprocess.run(
        ["sh", "-c", command_for(*runs).replace("rlhf show", "printf '%s\\n'")],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert sorted(listed) == sorted(map(str, runs))
    assert len(command_for(*runs)) < 200 < len(command_for(*runs[:12]))
    (tmp_path / "my runs" / "a=[x").mkdir()
    assert shlex.split(command_for(*runs))[2:] == list(map(str, runs))


def test_the_figures_of_tasks_are_shown(empty_folder, capsys):
    """They are shown beside the table, or alone where an evaluation had no prompts."""
    figures = {"value": 0.625, "low": 0.5, "high": 0.75, "template_std": None, "unreadable": 0.0}
    figures |= {"near_chance": False, "ranks": {}, "votes": {}}
    row = {
        "model": f"SFT{HOSTILE}",
        "shots": 0,
        "asked": "direct",
        "tasks": {f"rte{HOSTILE}": figures},
    }
    row |= {"clusters": {"nli": 0.625}, "groups": {}, "macro": 0.625}
    content = {"title": "8 rows of 1 task", "tasks": {}, "rows": [row], "notes": [HOSTILE]}
    finish(empty_folder / "runs/one", "evaluate", tasks=content)
    for words in (("one",), ("runs/one/evaluate",)):
        shown = page(capsys, *words)
        assert "8 rows of 1 task" in shown and "[0.50, 0.75]" in shown
        assert "\x1b" not in shown
    assert json.loads(page(capsys, "one", "--json"))["tasks"] == content

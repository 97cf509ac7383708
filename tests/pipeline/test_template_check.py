"""Tasks in `rlhf data check`, and in a run before anything starts."""

import json

import pytest

from rlhf_cli.cli import main
from tests.support.tasks import make, rows

MIXTURE = "data.demonstrations=[{path: 'tasks:train'}]"
WORDS = ("stage=sft", "data=generic", "runtime=cpu", MIXTURE)


@pytest.fixture
def outcome(tmp_path, monkeypatch, capsys):
    """Return outcome(*words) -> (exit code, output, errors); no stage can start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("rlhf_cli.pipeline.driver.run_workers", None)

    def run(*words: str):
        code = main([*words, *WORDS])
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


def test_an_example_of_every_template_is_shown_with_its_loss_mask(tmp_path, outcome):
    path = make(tmp_path, 30)
    code, shown, error = outcome("data", "check", f"tasks.files=[{path}]", "--json")
    found = json.loads(shown)
    assert (code, error, found["refused"]) == (0, "", None)
    names = ["conclude", "true", "invent, turned around"]
    assert list(found["templates"]) == [f"task rte, template {name}" for name in names]
    first, _, last = found["templates"].values()
    dog = first.partition("rte dog ")[2].partition(" ")[0]
    answer = ("yes", "no")[int(dog) % 2]
    assert first.count("[[") == 1 and answer in first.partition("[[")[2]
    assert "OPTIONS:\n- yes\n- no" in first.partition("[[")[0]
    assert "Premise: rte dog" in last.partition("[[")[2] and "Write a premise." in last


def test_a_template_that_applies_to_no_row_is_named(tmp_path, outcome):
    never = {"name": "never", "input": "{% if label == 9 %}x ||| y{% endif %}"}
    asked = {"name": "ask", "input": "Is {{hypothesis}} so?", "target": "{{answer}}"}
    path = make(tmp_path, 30, templates=[asked, never])
    code, shown, _ = outcome("data", "check", f"tasks.files=[{path}]")
    assert code == 0 and "task rte, template ask\n" in shown
    below = shown.partition("task rte, template never\n")[2]
    assert "a template that does not apply to the row: never" in below.splitlines()[0]


def test_renderings_of_later_epochs_are_not_reported_as_duplicates(tmp_path, outcome):
    path = make(tmp_path, 30)
    _, shown, _ = outcome("data", "check", f"tasks.files=[{path}]", "sft.epochs=3", "--json")
    (role,) = json.loads(shown)["roles"]
    assert not [f for f in role["findings"] if "a copy of" in f["what"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tasks.hold_out=[nli]",), "tasks.hold_out leaves none of 1 tasks to train on"),
        (("tasks.hold_out=[nil]",), "tasks.hold_out: no task and no cluster is named nil: did you"),
        (("tasks.files=[]",), "tasks:train has no tasks: name task files or presets"),
        (("tasks.shots=[0,60]",), "rte.yaml: tasks.shots=[0, 60] needs 61 rows"),
        (("data.strict=true",), "rte.jsonl:4: a name that the row does not have"),
    ],
)
def test_a_run_with_bad_tasks_is_refused_before_any_stage(words, message, tmp_path, outcome):
    bad = [{**row, "y": 7} if i == 3 else row for i, row in enumerate(rows(40))]
    path = make(tmp_path, rows=bad)
    code, _, error = outcome("run", f"tasks.files=[{path}]", *words)
    assert code != 0 and message in error and error.count("\n") == 1

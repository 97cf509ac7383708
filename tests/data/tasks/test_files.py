"""Task files: what is read, and the error for each invalid one."""

import json
from pathlib import Path

import pytest
import yaml

from rlhf_cli.config.keys import conf_dir
from rlhf_cli.data.records import DataError
from rlhf_cli.data.tasks.files import preset_names, read_tasks
from rlhf_cli.data.tasks.rows import task_rows
from rlhf_cli.data.tasks.sections import load_yaml
from tests.support.tasks import RTE, make, one_task, rows

SPLIT = {"seed": 1, "eval_fraction": 0.2, "select_fraction": 0.1}


def test_the_source_of_a_task_file_is_relative_to_its_folder(tmp_path):
    task = one_task(make(tmp_path, groups=["algorithmic"]))
    assert (task.name, task.clusters, task.groups) == ("rte", ("nli",), ("algorithmic",))
    assert task.source.train.path == str(tmp_path / "rte.jsonl")
    assert task.metric == "accuracy"
    assert [t.name for t in task.templates if t.turned_around] == ["invent"]
    assert task.rationale == "{{ why }}"


def test_a_free_answer_is_compared_exactly_unless_a_metric_is_named(tmp_path):
    templates = [{"name": "a", "input": "{{premise}}", "target": "{{answer}}"}]
    task = one_task(make(tmp_path, options=None, answer="{{label}}", templates=templates))
    assert (task.options, task.metric) == (None, "exact_match")


def test_task_files_are_named_by_file_or_by_folder(tmp_path):
    make(tmp_path, name="a")
    second = make(tmp_path, name="b")
    assert [task.name for task in read_tasks([str(tmp_path)])] == ["a", "b"]
    assert [task.name for task in read_tasks([str(second)])] == ["b"]


def test_every_preset_names_task_files(tmp_path):
    for preset in (conf_dir() / "tasks").rglob("*.yaml"):
        path = load_yaml(preset)["source"]["path"]
        (tmp_path / Path(path).name).touch()
    every = [task for name in preset_names() for task in read_tasks([name], folder=str(tmp_path))]
    assert len({task.name for task in every}) == len(every) > 20
    assert sum(task.source.train.path.count("/") == 1 for task in every) == 2  # of the hub
    assert all(task.held_out == (task.clusters == ("bbh",)) for task in every)


def test_a_preset_reads_its_files_from_tasks_folder(tmp_path, monkeypatch):
    (tmp_path / "creak.tsv").touch()
    (task,) = read_tasks(["creak"], folder=str(tmp_path))
    assert task.source.train.path == str(tmp_path / "creak.tsv")
    monkeypatch.chdir(tmp_path)
    assert read_tasks(["creak"])[0].source.train.path == "creak.tsv"
    (tmp_path / "creak.tsv").unlink()
    message = f"preset creak reads creak.tsv, which is not in {tmp_path}; set tasks.folder"
    with pytest.raises(DataError, match=message):
        read_tasks(["creak"])


WRONG = [
    ({"clusters": []}, r"rte has no clusters.*write clusters"),
    ({"clusters": None}, r"rte has no clusters"),
    ({"templetes": []}, r"rte.yaml: unknown key 'templetes': did you mean templates\?"),
    ({"source": {"pth": "x"}}, r"source: unknown key 'pth': did you mean path\?"),
    ({"options": ["yes"]}, r"options has 1 entry.*two or more"),
    ({"options": ["yes", "yes"]}, r"options names 'yes' twice"),
    ({"options": [True, False]}, r"options has true: write a word such as yes or no in quotes"),
    ({"options": "yes or no"}, r"options is 'yes or no'; it must be a list, or one expression"),
    ({"metric": "acuracy"}, r"metric acuracy is none of .*did you mean accuracy\?"),
    ({"answer": None}, r"answer is missing; it must be a text"),
    ({"templates": []}, r"task rte has no templates"),
    ({"templates": [{"name": "a", "input": "x", "target": "y", "turn": 1}]}, r"unknown key 'turn'"),
    ({"templates": [{"name": "a", "target": "y"}]}, r"templates\[0\]: input is missing"),
    ({"templates": [RTE["templates"][0]] * 2}, r"two templates are named conclude; rename one"),
    ({"templates": [RTE["templates"][2]]}, r"all templates of rte are turned around"),
    (
        {"templates": [{"name": "a", "input": "{{x", "target": "y"}]},
        r"rte.yaml: template a: .*see its",
    ),
    (
        {"answer": "{{ options[lable] }}"},
        r"answer uses \{\{lable\}\}, which .*rte.jsonl.*did you mean label",
    ),
    (
        {"templates": [{"name": "a", "input": "{{premis}}", "target": "y"}]},
        r"rte.yaml: template a uses \{\{premis\}\}, which .*rte.jsonl:1 does not have: did you mean prem",
    ),
    (
        {"options": None, "answer": "{{label}}"},
        r"template conclude uses .*but the task has no options",
    ),
    ({"name": "a/b"}, r"name is 'a/b'; it must be a plain word"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_an_invalid_task_file_is_refused_in_one_line_with_the_remedy(changes, message, tmp_path):
    path = make(tmp_path)
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    with pytest.raises(DataError, match=message) as error:
        task_rows(one_task(path), **SPLIT)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_two_tasks_with_the_same_name_are_refused(tmp_path):
    first = make(tmp_path)
    second = tmp_path / "again.yaml"
    second.write_text(first.read_text())
    with pytest.raises(
        DataError, match=r"a task rte is already in .*rte.yaml; give one another name"
    ):
        read_tasks([str(first), str(second)])


def test_an_unknown_name_is_refused_with_the_nearest_preset():
    with pytest.raises(DataError, match="no file, no folder and no preset: did you mean creak"):
        read_tasks(["craek"])


def test_a_repeated_key_is_refused_with_its_line(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nclusters: [b]\nname: c\n")
    with pytest.raises(DataError, match=r"twice.yaml:3: the key 'name' stands twice"):
        read_tasks([str(path)])


def test_options_that_are_numbers_are_read_as_texts(tmp_path):
    """The file is written as YAML, as in the documentation."""
    path = tmp_path / "rte.yaml"
    path.write_text(yaml.safe_dump({**RTE, "options": ["1", 2]}))
    (tmp_path / "rte.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(5)))
    assert one_task(path).options == ("1", "2")

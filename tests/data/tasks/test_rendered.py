"""Rows that are already rendered, as in the dumps of T0."""

import json

import pytest

from rlhf_cli.data.records import BadRow, DataError
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.data.tasks.render import example
from rlhf_cli.data.tasks.rows import task_rows
from tests.support.tasks import make, mixture, one_task, records, rendered_rows

SPLIT = {"seed": 1, "eval_fraction": 0.2, "select_fraction": 0.1}
T0 = ("ag_news", "app_reviews", "common_gen", "commonsense_qa", "gigaword", "glue_mrpc", "quarel",
      "rotten_tomatoes", "sciq", "trec")  # fmt: skip


def dump(folder, **changes):
    """Write a task of rendered rows."""
    plain = {"templates": None, "options": None, "answer": None, "rationale": None}
    changes = {"source": {"path": "rte.jsonl"}, "rows": rendered_rows(), **plain, **changes}
    return make(folder, **changes)


def every(found) -> list:
    return [*found.train, *found.select, *found.evaluation]


def test_rendered_rows_are_recognized_by_their_columns(tmp_path):
    found = task_rows(one_task(dump(tmp_path)), **SPLIT)
    assert [t.name for t in found.templates] == ["short", "long"]
    assert len(every(found)) == 23
    for row in every(found):
        (template,) = found.templates_of(row)
        one = example(found.task, row, template)
        assert one.input.startswith(f"{template.name}: text") and one.target in ("good", "bad")
        assert (one.answer, one.options) == (one.target, ())


def test_an_empty_target_is_a_bad_row_with_its_line_and_template(tmp_path):
    found = task_rows(one_task(dump(tmp_path)), **SPLIT)
    assert [(b.origin.line, b.reason, b.detail) for b in found.bad] == [
        (13, "empty target", "template long")
    ]


def test_the_completions_of_a_template_may_be_its_options(tmp_path):
    found = task_rows(one_task(dump(tmp_path, options="{{completions}}")), **SPLIT)
    row = found.train[0]
    assert example(found.task, row, found.templates_of(row)[0]).options == ("bad", "good")


def test_all_renderings_of_an_item_are_one_row(tmp_path):
    listed = [{**row, "id": i % 12} for i, row in enumerate(rendered_rows())]
    path = dump(tmp_path, rows=listed, source={"path": "rte.jsonl", "item": "id"})
    found = task_rows(one_task(path), **SPLIT)
    assert len(every(found)) == 12
    assert sorted(len(row.rendered) for row in every(found)) == [1] + [2] * 11
    for row in every(found):
        assert {text.values["id"] for text in row.rendered.values()} == {row.number}


def test_inverted_templates_are_named_in_the_task_file(tmp_path):
    path = dump(tmp_path, turned_around=["long"], options=["good", "bad", "none"])
    found = task_rows(one_task(path), **SPLIT)
    assert [t.turned_around for t in found.templates] == [False, True]
    with pytest.raises(DataError, match="no template lnog: did you mean long"):
        task_rows(one_task(dump(tmp_path, turned_around=["lnog"])), **SPLIT)


def test_inverted_renderings_are_used_for_training_alone(tmp_path):
    path = dump(tmp_path, rows=rendered_rows(40), turned_around=["long"])
    found, _ = records(mixture(path))
    made = [r for r in found if not isinstance(r, BadRow)]
    trained = {r.meta["template"] for r in made if "slot" in r.meta}
    held_out = {r.meta["template"] for r in made if "slot" not in r.meta}
    assert (trained, held_out) == ({"short", "long"}, {"short"})


def test_a_task_without_templates_and_without_rendered_rows_is_refused(tmp_path):
    path = dump(tmp_path, rows=[{"prompt": "x", "completion": "y"}])
    with pytest.raises(
        DataError, match=r"rte has no templates, and .*rte.jsonl:1 has no columns temp"
    ):
        task_rows(one_task(path), **SPLIT)


def test_a_rendered_row_without_a_column_is_a_bad_row(tmp_path):
    listed = [*rendered_rows(), {"template": "short", "prompt": "x"}]
    found = task_rows(one_task(dump(tmp_path, rows=listed)), **SPLIT)
    assert [b.reason for b in found.bad] == ["empty target", "missing column"]


def test_the_real_sets_of_t0_are_read(real_data):
    folder = real_data / "demonstrations" / "t0_templates"
    tasks = {task.name: task for task in read_tasks(["t0"], folder=str(folder))}
    assert tuple(tasks) == T0
    for name, task in tasks.items():
        found = task_rows(task, **SPLIT)
        lines = (folder / f"{name}.jsonl").read_text().splitlines()
        assert found.num_read == len(lines) and found.num_good + len(found.bad) == len(lines)
        assert {b.reason for b in found.bad} == ({"empty target"} if name == "trec" else set())
        assert found.num_good == (0 if name == "trec" else len(lines))
        names = [json.loads(line)["template"] for line in lines]
        if found.num_good:
            assert [t.name for t in found.templates] == list(dict.fromkeys(names))
            assert all(
                "<|" not in text.completion for r in every(found) for text in r.rendered.values()
            )
    mrpc = task_rows(tasks["glue_mrpc"], **SPLIT)
    one = example(mrpc.task, mrpc.train[0], mrpc.templates_of(mrpc.train[0])[0])
    assert one.options == ("equivalent", "not equivalent")


def test_the_real_sets_with_rationales_and_benchmarks_are_read(real_data):
    cot = real_data / "demonstrations" / "flan_cot"
    for task in read_tasks(["creak", "strategyqa", "qasc"], folder=str(cot)):
        found = task_rows(task, **SPLIT)
        assert not found.bad and found.num_good == found.num_read > 500
        one = example(task, found.train[0], found.templates[0], chain=True)
        assert one.chain and one.target.endswith(f"The answer is {one.answer}.")
        assert "\\n" not in one.input
    for task in read_tasks(["bbh"], folder=str(real_data / "eval" / "bbh")):
        found = task_rows(task, **SPLIT)
        assert found.num_good + len(found.bad) == 250 and len(found.bad) <= 1
        assert task.held_out and task.groups[0] in ("algorithmic", "language")
        assert task.cot_prompt.is_file()
        assert all(bad.detail.startswith("'Monsters, Inc'") for bad in found.bad)

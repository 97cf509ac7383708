"""Rendering a row with a template: options, chains of thought, and rows that a template refuses."""

import pytest

from rlhf_cli.data import sandbox
from rlhf_cli.data.records import DataError, Filtered, RowError
from rlhf_cli.data.tasks import render
from rlhf_cli.data.tasks.render import example, options_text
from rlhf_cli.data.tasks.rows import task_rows
from tests.support.tasks import make, one_task

SPLIT = {"seed": 1, "eval_fraction": 0.2, "select_fraction": 0.1}


def first(path):
    """Return (task, its first row to train on, {name: template})."""
    found = task_rows(one_task(path), **SPLIT)
    return found.task, found.train[0], {t.name: t for t in found.templates}


def test_options_text_equals_that_of_flan():
    assert options_text(["a", "b"]) == "OPTIONS:\n- a\n- b"


def test_a_template_gives_input_target_options_and_answer(tmp_path):
    task, row, templates = first(make(tmp_path))
    one = example(task, row, templates["conclude"])
    i = row.number
    assert one.input == (
        f"rte dog {i} runs\nCan we conclude that rte animal {i} moves?\nOPTIONS:\n- yes\n- no"
    )
    assert (one.target, one.answer, one.options) == (("yes", "no")[i % 2],) * 2 + (("yes", "no"),)
    assert (one.rationale, one.chain, one.template) == (f"dog {i}", False, "conclude")
    assert one.origin.line == i + 1


def test_show_options_false_removes_the_options_and_their_line(tmp_path):
    task, row, templates = first(make(tmp_path))
    one = example(task, row, templates["conclude"], show_options=False)
    assert one.input.endswith("moves?") and "OPTIONS" not in one.input
    middle = [{"name": "m", "input": "a\n{{options_}}\nb {{premise}}", "target": "{{answer}}"}]
    task, row, templates = first(make(tmp_path, templates=middle))
    assert example(task, row, templates["m"], show_options=False).input.startswith("a\nb rte dog")


def test_a_chain_of_thought_adds_its_request_and_comes_before_the_answer(tmp_path):
    task, row, templates = first(make(tmp_path))
    one = example(task, row, templates["conclude"], chain=True)
    assert one.input.endswith("\n- no\nLet's think step by step.") and one.chain
    assert one.target == f"dog {row.number}\nThe answer is {one.answer}."


def test_inverted_templates_and_rows_without_a_rationale_have_no_chain(tmp_path):
    task, row, templates = first(make(tmp_path))
    one = example(task, row, templates["invent"], chain=True)
    assert (one.input, one.chain, one.options) == ("Write a premise.", False, ())
    assert one.target == one.answer == f"Premise: rte dog {row.number} runs"
    empty = [{"p": f"x {i}", "h": "y", "y": 0, "why": None} for i in range(20)]
    task, row, templates = first(make(tmp_path, rows=empty))
    one = example(task, row, templates["conclude"], chain=True)
    assert (one.rationale, one.chain, one.target) == (None, False, "yes")


def test_options_may_be_an_expression_or_texts_of_the_row(tmp_path):
    listed = [{"p": "x", "h": f"y {i}", "y": 1, "why": "", "c": ["a", "b", 3]} for i in range(20)]
    task, row, templates = first(make(tmp_path, rows=listed, options="{{ c }}"))
    assert example(task, row, templates["true"]).options == ("a", "b", "3")
    task, row, templates = first(make(tmp_path, rows=listed, options=["{{h}}", "{{c[0]}}"]))
    one = example(task, row, templates["true"])
    assert one.options == (f"y {row.number}", "a") and one.answer == "a"


BAD = [
    ({"y": 7}, "a name that the row does not have"),
    ({"y": "yes"}, "a name that the row does not have"),
    ({"p": None}, "a null where a template needs a text"),
    ({"p": ["x"]}, "a list or an object where a template needs a text"),
]


@pytest.mark.parametrize(("change", "reason"), BAD)
def test_a_row_that_the_templates_refuse_is_a_bad_row_with_its_line(change, reason, tmp_path):
    good = [{"p": f"x {i}", "h": f"y {i}", "y": 0, "why": ""} for i in range(30)]
    good[3] = {**good[3], **change}
    found = task_rows(one_task(make(tmp_path, rows=good)), **SPLIT)
    assert [(bad.origin.line, bad.reason) for bad in found.bad] == [(4, reason)]
    assert found.num_good == 29 and found.num_read == 30


def test_an_answer_that_is_none_of_the_options_is_a_bad_row(tmp_path):
    found = task_rows(one_task(make(tmp_path, answer="{{ ['yes', 'maybe'][label] }}")), **SPLIT)
    assert {bad.reason for bad in found.bad} == {"an answer that is none of the options"}
    assert found.bad[0].detail == "'maybe', not of 'yes', 'no'" and found.bad[0].origin.line == 2


def test_a_row_with_invalid_options_is_a_bad_row(tmp_path):
    listed = [
        {"p": "x", "h": f"y {i}", "y": 0, "why": "", "c": c}
        for i, c in enumerate((["a"], ["a", "a"], "a", ["a", None]))
    ]
    found = task_rows(one_task(make(tmp_path, rows=listed, options="{{ c }}")), **SPLIT)
    assert [bad.reason for bad in found.bad] == [
        "fewer than two options", "an option that stands twice", "options that are no list",
        "an option that is no text",
    ]  # fmt: skip


def test_a_template_that_does_not_terminate_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 0.05)
    endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}x"
    path = make(tmp_path, templates=[{"name": "slow", "input": endless, "target": "{{answer}}"}])
    with pytest.raises(
        DataError, match=r"template slow: the template computes for more than 0.05 s"
    ):
        task_rows(one_task(path), **SPLIT)


def test_a_template_cannot_reach_python(tmp_path):
    unsafe = "{{ premise.__class__.__mro__ }}"
    path = make(tmp_path, templates=[{"name": "a", "input": unsafe, "target": "{{answer}}"}])
    found = task_rows(one_task(path), **SPLIT)
    assert not found.train and {bad.reason for bad in found.bad} <= {
        "a name that the row does not have", "a template refuses the row",
    }  # fmt: skip


def test_a_template_with_input_and_target_in_one_text_may_skip_rows(tmp_path):
    both = "{% if label == 1 %}Is {{hypothesis}} so? ||| {{ answer }}{% endif %}"
    path = make(tmp_path, templates=[{"name": "both", "input": both}])
    found = task_rows(one_task(path), **SPLIT)
    assert {row.values["y"] for row in found.train} == {1}
    one = example(found.task, found.train[0], found.templates[0])
    assert one.input == f"Is rte animal {found.train[0].number} moves so?" and one.target == "no"
    assert all(bad.left_out for bad in found.bad)


def test_a_target_without_text_is_refused(tmp_path):
    templates = [{"name": "a", "input": "x {{premise}}", "target": " {{''}} "}]
    task = one_task(make(tmp_path, templates=templates, options=None, answer="{{label}}"))
    found = task_rows(task, **SPLIT)
    assert {bad.reason for bad in found.bad} == {"empty target"}
    assert issubclass(Filtered, RowError)


def test_a_template_that_makes_a_huge_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "ADDED", 1000)
    huge = [{"name": "huge", "input": "{{ 'x' * 9000 }}", "target": "{{answer}}"}]
    with pytest.raises(DataError, match=r"template huge makes a text of 9,000 characters; shorten"):
        task_rows(one_task(make(tmp_path, templates=huge)), **SPLIT)
    rows = [{"p": "y" * 3000, "h": f"{i}", "y": 0, "why": ""} for i in range(3)]
    same = [{"name": "same", "input": "{{premise}}{{hypothesis}}", "target": "{{answer}}"}]
    assert not task_rows(one_task(make(tmp_path, rows=rows, templates=same)), **SPLIT).bad

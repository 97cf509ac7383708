"""The split of the rows of a task: by question, or by a source of evaluation rows."""

import json

from rlhf_cli.config.schema import Source
from rlhf_cli.data.tasks.rows import eval_rows, task_rows
from tests.support.data_sources import load, place_of
from tests.support.tasks import make, one_task, rows

SPLIT = {"seed": 1, "eval_fraction": 0.2, "select_fraction": 0.1}


def sides(found) -> dict[str, set[int]]:
    return {
        side: {row.number for row in getattr(found, side)}
        for side in ("train", "select", "evaluation")
    }


def test_the_split_of_a_row_follows_its_question_by_the_first_template(tmp_path):
    found = task_rows(one_task(make(tmp_path, 200)), **SPLIT)
    for side, (low, high) in {
        "evaluation": (0, 0.2),
        "select": (0.2, 0.3),
        "train": (0.3, 1),
    }.items():
        for row in getattr(found, side):
            i = row.number
            question = f"rte dog {i} runs can we conclude that rte animal {i} moves?"
            assert row.question == question
            assert low <= place_of(question, seed=1) < high
    assert sum(map(len, sides(found).values())) == found.num_read == 200


def test_demonstrations_with_the_same_question_are_in_the_same_split(tmp_path, config):
    """A row of a task and a demonstration with the same question are held out together."""
    found = task_rows(
        one_task(make(tmp_path, 100)), seed=1, eval_fraction=0.2, select_fraction=0.05
    )
    path = tmp_path / "plain.jsonl"
    lines = [
        {"prompt": f"{row['p']}\nCan we conclude that {row['h']}?", "response": str(i)}
        for i, row in enumerate(rows(100))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = load(config(demonstrations=[path]), "demonstrations")
    assert {int(r.messages[-1].content) for r in plain.eval} == sides(found)["evaluation"]
    assert {int(r.messages[-1].content) for r in plain.train} == sides(found)["train"]


def test_rows_of_an_evaluation_source_are_not_trained_on(tmp_path):
    source = {
        "path": "rte.jsonl",
        "eval_path": "dev.jsonl",
        "columns": {"premise": "p", "hypothesis": "h", "label": "y"},
    }
    path = make(tmp_path, 60, source=source)
    dev = rows(10) + rows(70)[60:]  # ten of the rows to train on, and ten new ones
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dev))
    found = task_rows(one_task(path), **SPLIT)
    assert [row.values["p"] for row in found.evaluation] == [row["p"] for row in dev]
    assert found.num_asked_again == 10
    assert not sides(found)["train"] & set(range(10))
    assert all(place_of(row.question, seed=1) >= 0.3 for row in found.train)


def test_at_most_cap_rows_are_drawn_by_the_seed(tmp_path):
    task = one_task(make(tmp_path, 200))
    every, some = task_rows(task, **SPLIT), task_rows(task, **SPLIT, cap=30)
    assert len(some.train) == 30 and sides(some)["train"] < sides(every)["train"]
    assert [r.number for r in some.train] != [r.number for r in every.train[:30]]
    assert sides(task_rows(task, **SPLIT, cap=30)) == sides(some)
    assert some.num_good == 200


def test_evaluation_rows_are_limited_and_other_rows_serve_as_exemplars(tmp_path):
    task = one_task(make(tmp_path, 200))
    found = eval_rows(task, seed=1, eval_fraction=0.2, limit=10)
    assert len(found.evaluation) == 10 and len(found.train) > 120
    assert not sides(found)["train"] & sides(found)["evaluation"]
    held = sides(task_rows(task, **SPLIT))["evaluation"]
    assert sides(found)["evaluation"] < held


def test_a_source_may_have_numbered_columns_and_escapes(tmp_path):
    path = tmp_path / "creak.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "creak",
                "clusters": ["facts"],
                "source": {"path": "c.tsv", "columns": {"q": 0, "a": 1}, "unescape": True},
                "options": ["yes", "no"],
                "answer": "{{a}}",
                "templates": [{"name": "t", "input": "{{q}}", "target": "{{answer}}"}],
            }
        )
    )
    (tmp_path / "c.tsv").write_text("".join(f"Is it {i}?\\nOptions\tyes\n" for i in range(20)))
    task = one_task(path)
    assert task.source.train == Source(
        path=str(tmp_path / "c.tsv"), columns={"q": "0", "a": "1"}, unescape=True
    )
    found = task_rows(task, **SPLIT)
    assert found.train[0].question.startswith("is it") and not found.bad
    assert "\n" in found.train[0].values["q"]

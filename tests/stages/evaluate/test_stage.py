"""Files and notes of the evaluation beside its table."""

import json

from rlhf_cli.data.embedded import task_of
from rlhf_cli.data.records import Message, Origin, Prompt
from rlhf_cli.evaluation.metrics import EvalResult, measure
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.stages.evaluate.files import write_answers
from rlhf_cli.stages.evaluate.stage import costs_of, notes_on
from tests.support.artifacts import manifest


def test_measures_of_a_task_are_written_beside_each_answer(tmp_path):
    result = EvalResult(
        prompts=[Prompt((Message("user", "x"),), Origin("made in a test", 0))],
        answers=[Answer(prompt_ids=[5], ids=[7], text="y", finished=True)],
        scores=None,
        log_ratios=None,
        measures={"gold": [1.5], "rude": [True]},
    )
    entry = {"model": "SFT", "index": 0, "prompt": "x", "response": "y", "finished": True}
    entry |= {"tokens": 1, "score": None}
    for task, expected in ((task_of("tiny_world:prompts"), entry | {"gold": 1.5}), (None, entry)):
        write_answers(tmp_path / "answers.jsonl", {"SFT": result}, task)
        assert json.loads((tmp_path / "answers.jsonl").read_text()) == expected


def test_a_task_explains_its_measures_below_the_table():
    task = task_of("tiny_world:prompts")
    assert notes_on(task, "SFT") == [*notes_on(None, "SFT"), task.NOTE]
    assert "preferred to base's answer" in notes_on(None, "base")[1]


def test_the_costs_of_a_stage_are_those_of_its_manifest(tmp_path):
    found = manifest("rloo")
    costs = {"sampled_responses": 128, "sampled_tokens": 900, "seconds": 3.5}
    found.metrics = {"loss": 1.0} | {f"cost/{name}": value for name, value in costs.items()}
    (tmp_path / "manifest.json").write_text(found.seal().to_json())
    assert costs_of(tmp_path) == costs
    assert costs_of(tmp_path / "elsewhere") == {}
    result = EvalResult(prompts=[], answers=[], scores=None, log_ratios=None, costs=costs)
    row = measure(result)
    assert row["sampled_tokens"] == (900, 900, 900) and "trained_tokens" not in row

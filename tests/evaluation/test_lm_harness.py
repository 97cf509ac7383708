"""Evaluation by the harness: its results as rows, its shots, and what a model has no room for."""

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation import lm_harness
from rlhf_cli.evaluation.lm_harness import _num_cut, _require_room, _set_shots, rows_of, spacing_of
from rlhf_cli.evaluation.lm_request import ChatSpacing, EvaluatedModel, LmEvalRequest
from rlhf_cli.models.load import ASSETS

FOUND = {
    "results": {
        "mine": {"name": "mine", "alias": "mine", "sample_len": 5, "acc,none": 0.4, "acc_stderr,none": 0.2},
        "gsm": {"exact_match,strict": float("nan"), "exact_match_stderr,strict": "N/A"},
        "all": {"acc,none": 0.5, "acc_stderr,none": 0.1},
        "part": {"acc,none": 0.5, "acc_stderr,none": 0.1},
    },
    "group_subtasks": {"all": ["inner"], "inner": ["part", "gsm"]},
    "n-samples": {"mine": {"original": 9, "effective": 5}, "gsm": {"original": 7, "effective": 7},
                  "part": {"original": 3, "effective": 3}},
    "n-shot": {"mine": 2, "gsm": 5, "part": 0},
    "versions": {"mine": 1.0, "gsm": "Yaml", "all": None},
    "higher_is_better": {"mine": {"acc": True}, "gsm": {"exact_match": False}},
}  # fmt: skip


def request(**changes) -> LmEvalRequest:
    plain = {"tasks": ("mine",), "tasks_dir": None, "limit": 5, "shots": None, "batch": 8, "chat": True,
             "out": None}  # fmt: skip
    return LmEvalRequest(model=EvaluatedModel(name="m", path="m", weights="w"), **(plain | changes))


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(lm_harness, "version", lambda name: f"{name} 1")
    cut = {"mine": 1, "gsm": 2, "part": 0}
    return {(one.task, one.metric): one for one in rows_of(FOUND, request(), cut, "float32")}


def test_each_metric_is_a_row_with_how_it_was_measured(rows):
    assert list(rows) == [("mine", "acc"), ("gsm", "exact_match"), ("all", "acc"), ("part", "acc")]
    mine = rows["mine", "acc"]
    assert (mine.value, mine.stderr, mine.filter) == (0.4, 0.2, "none")
    assert (mine.count, mine.cut, mine.shots, mine.limit, mine.chat) == (5, 1, 2, 5, True)
    assert (mine.task_version, mine.higher_is_better, mine.group) == ("1.0", True, None)
    assert (mine.lm_eval, mine.transformers, mine.dtype) == (
        "lm_eval 1",
        "transformers 1",
        "float32",
    )


def test_a_value_that_is_no_number_is_none(rows):
    gsm = rows["gsm", "exact_match"]
    assert (gsm.value, gsm.stderr, gsm.higher_is_better) == (None, None, False)


def test_a_group_counts_the_questions_of_all_tasks_below_it(rows):
    assert (rows["all", "acc"].count, rows["all", "acc"].cut, rows["all", "acc"].shots) == (
        10,
        2,
        None,
    )
    assert rows["part", "acc"].group == "inner" and rows["all", "acc"].group is None


class Task:
    """A task with this number of shots in its definition."""

    task_name, OUTPUT_TYPE = "mine", "generate_until"

    def __init__(self, shots=None, **generation):
        self.config = SimpleNamespace(num_fewshot=shots, generation_kwargs=generation)

    def get_config(self, key):
        return getattr(self.config, key)

    def set_config(self, key, value):
        setattr(self.config, key, value)

    def set_fewshot_seed(self, seed):
        self.seed = seed


@pytest.mark.parametrize(
    ("own", "asked", "shots"),
    [(None, None, 0), (None, 3, 3), (5, None, 5), (5, 3, 3), (5, 0, 0), (0, 3, 0), (0, None, 0)],
)
def test_the_shots_asked_for_replace_those_of_a_task_unless_it_has_none_by_intention(
    own, asked, shots
):
    task = Task(own)
    _set_shots(task, asked)
    assert task.config.num_fewshot == shots and task.seed == 1234


def test_a_task_whose_responses_leave_no_room_for_the_question_is_refused():
    lm = SimpleNamespace(max_length=256, max_gen_toks=256)
    _require_room(Task(max_gen_toks=255), lm)
    for task in (Task(), Task(max_gen_toks=256), Task(max_new_tokens=300)):
        with pytest.raises(UserError, match="mine lets a model write"):
            _require_room(task, lm)


def test_a_question_is_counted_once_however_many_of_its_inputs_were_cut():
    inputs = [
        SimpleNamespace(doc_id=doc, args=(text, "x"))
        for doc, text in ((0, "a"), (0, "a"), (1, "b"))
    ]
    assert _num_cut(SimpleNamespace(instances=inputs), {"a"}) == 1
    assert _num_cut(SimpleNamespace(instances=inputs), {"a", "b"}) == 2


def test_the_space_before_a_response_is_that_of_the_template():
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tiny_xs")
    before = len(tokenizer)
    assert spacing_of(tokenizer) == ChatSpacing(header="", space=" ")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}<|eos|>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>\n{% endif %}"
    )
    assert spacing_of(tokenizer) == ChatSpacing(header="", space="")
    assert len(tokenizer) == before

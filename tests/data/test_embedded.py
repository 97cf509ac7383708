"""Generated sources, and the package that generates them."""

from rlhf_cli.data.embedded import (
    Content,
    common_task,
    measure_labels,
    right_steps,
    scheme_of,
    task_of,
)


def test_only_a_known_scheme_is_generated():
    assert scheme_of("tiny_world:prompts") == "tiny_world"
    for path in ("tiny_world", "tiny_world/prompts.jsonl", "other:prompts", "org/name", "C:x.csv"):
        assert scheme_of(path) is None
        assert task_of(path) is None


def test_a_task_is_the_package_of_its_scheme():
    found = task_of("tiny_world:prompts")
    assert found is not None and found.__name__ == "rlhf_cli.tiny_world"
    assert "held_out_prompts" in found.keys_of("prompts")


def test_sources_have_a_task_in_common_only_if_it_generates_all_of_them():
    prompts, comparisons = "tiny_world:prompts", "tiny_world:comparisons"
    assert common_task([prompts, comparisons, prompts]) is task_of(prompts)
    for read in ([prompts, "mine.jsonl"], ["mine.jsonl", "yours.csv"], []):
        assert common_task(read) is None


def test_every_measure_of_a_task_has_a_label():
    task = task_of("tiny_world:prompts")
    meta = {"answer": "cold", "rivals": ("wet",), "members": (), "count": 0, "held_out": False}
    assert list(task.measure_answer(meta, "cold", finished=True)) == list(task.LABELS)
    assert task.UTILITY in task.LABELS
    assert measure_labels()["gold"] == "gold utility"


def test_the_content_of_an_answer_is_that_which_the_task_finds():
    task = task_of("tiny_world:prompts")
    meta = {"answer": "cold", "rivals": ("wet",), "members": (), "count": 0, "held_out": False}
    assert task.content_of(meta, "It is cold.") == Content(right="cold", abstains=False, many=False)


def test_steps_of_a_rationale_are_checked_where_its_question_is_of_a_task():
    rationale, question = "5 plus 3 is 8. 8 minus 2 is 7.", "I have 5, get 3 and lose 2."
    assert right_steps("tiny_world:step_sums", rationale, question=question) == [True, False]
    assert right_steps("sums.jsonl", rationale, question=question) is None

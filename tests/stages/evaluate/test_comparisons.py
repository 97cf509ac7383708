"""The held-out comparisons of an evaluation: which they are, and their responses as answers."""

from dataclasses import replace

import pytest

from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.evaluate.comparisons import compared_answers, held_out_comparisons
from tests.support.small_stages import changed, little


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    values = {"runs_dir": str(tmp_path_factory.mktemp("runs")), "data.max_response_tokens": 6}
    return open_context(changed(little(), values))


def with_values(context, **values):
    return replace(context, cfg=changed(context.cfg, values))


def rows_of(comparisons):
    return [one.record.origin.row for one in comparisons]


def test_as_many_comparisons_as_prompts_are_drawn_by_the_seed(context):
    every = rows_of(context.encoded("comparisons").held_out)
    trained = rows_of(context.encoded("comparisons").train)
    assert len(every) > 4 and not set(every) & set(trained)
    few = with_values(context, **{"evaluation.prompts": 4})
    drawn = rows_of(held_out_comparisons(few))
    assert len(drawn) == len(set(drawn)) == 4 and set(drawn) < set(every)
    assert rows_of(held_out_comparisons(few)) == drawn != every[:4]
    many = with_values(context, **{"evaluation.prompts": 400})
    assert sorted(rows_of(held_out_comparisons(many))) == sorted(every)


def test_without_comparisons_there_are_none(context):
    assert held_out_comparisons(with_values(context, **{"data.comparisons": []})) == []


def test_every_response_is_an_answer_that_is_finished_unless_it_was_cut(context):
    comparisons = list(context.encoded("comparisons").held_out)
    answers = compared_answers(comparisons, context.renderer)
    expected = [
        (one.prompt_ids, ids, text)
        for one in comparisons
        for ids, text in zip(one.response_ids, one.record.responses, strict=True)
    ]
    assert [(a.prompt_ids, a.ids, a.text) for a in answers] == expected
    whole = [len(context.renderer.response_ids(text)) <= 6 for _, _, text in expected]
    assert [answer.finished for answer in answers] == whole
    assert True in whole and False in whole

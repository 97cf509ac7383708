"""The numbers of the evaluation table, from answers with known values."""

import math

import pytest
import torch

from rlhf_cli.data.records import Message, Origin, Prompt
from rlhf_cli.evaluation.metrics import EvalResult, best_of, measure, measure_answers
from rlhf_cli.evaluation.respond import Answer

ORIGIN = Origin("made in a test", 0)


def answers(lengths, finished=None):
    finished = finished or [True] * len(lengths)
    return [
        Answer(prompt_ids=[5], ids=[7] * n, text=f"answer {i}", finished=f)
        for i, (n, f) in enumerate(zip(lengths, finished, strict=True))
    ]


def result(lengths, scores=None, log_ratios=None, finished=None):
    prompts = [Prompt((Message("user", "x"),), ORIGIN) for _ in lengths]
    return EvalResult(
        prompts=prompts,
        answers=answers(lengths, finished),
        scores=None if scores is None else torch.tensor(scores),
        log_ratios=None if log_ratios is None else torch.tensor(log_ratios),
    )


def test_measure_gives_means_rates_and_none_for_unknown_values():
    row = measure(result([2, 4, 6], log_ratios=[1.0, 2.0, 3.0], finished=[True, False, True]))
    assert row["length"][0] == 4.0
    assert row["kl"][0] == 2.0
    assert row["eos_rate"][0] == pytest.approx(2 / 3)
    assert row["score"] is None and "win_rate" not in row
    # Student's t with 2 degrees of freedom: 4.303 * 2 / sqrt(3)
    assert row["length"][2] - 4.0 == pytest.approx(4.3027 * 2 / math.sqrt(3), rel=1e-3)


def test_a_win_is_a_higher_score_and_a_tie_is_half_a_win():
    mine, base = (
        result([1, 1, 1, 1], [1.0, 2.0, 0.0, 5.0]),
        result([2] * 4, [0.0, 2.0, 1.0, 1.0]),
    )
    assert measure(mine, base)["win_rate"][0] == pytest.approx(2.5 / 4)
    assert measure(base, base)["win_rate"][0] == 0.5


def test_score_differences_within_rounding_are_ties():
    mine = result([3, 3], [1.0 + 1e-7, 2.0])
    assert measure(mine, result([3, 3], [1.0, 2.0 + 1e-7]))["win_rate"][0] == 0.5


def test_best_of_n_takes_the_best_score_per_prompt_and_gives_its_kl_bound():
    tries = [answers([1, 1]), answers([2, 2]), answers([3, 3]), answers([4, 4])]
    scores = torch.tensor([[0.0, 9.0], [5.0, 1.0], [4.0, 2.0], [1.0, 3.0]])
    chosen, best, bound = best_of(tries, scores)
    assert [len(answer.ids) for answer in chosen] == [2, 1]
    assert best.tolist() == [5.0, 9.0]
    assert bound == pytest.approx(0.636294, abs=1e-6)


class Counting:
    """A task with a number, a yes-or-no measure, and one that applies to some prompts only."""

    LABELS = {"worth": "worth", "even": "even", "asked": "asked"}

    @staticmethod
    def measure_answer(meta, response, *, finished):
        number = int(response.split()[-1])
        return {"worth": number / 2, "even": number % 2 == 0, "asked": meta.get("asked")}


def test_measures_of_a_task_are_means_or_rates_of_applicable_answers():
    metas = [{"asked": True}, {}, {"asked": False}]
    prompts = [Prompt((Message("user", "x"),), ORIGIN, meta) for meta in metas]
    found = result([1, 1, 1])
    found.measures = measure_answers(Counting, prompts, found.answers)
    row = measure(found)
    assert list(row)[:3] == ["worth", "even", "asked"]
    # Student's t with 2 degrees of freedom, and Wilson's interval of 2 of 3
    assert row["worth"] == pytest.approx((0.5, 0.5 - 1.2421, 0.5 + 1.2421), abs=1e-3)
    assert row["even"] == pytest.approx((2 / 3, 0.2077, 0.9385), abs=1e-3)
    assert row["asked"][0] == 0.5


def test_a_measure_that_applies_to_no_answer_is_none():
    prompts = [Prompt((Message("user", "x"),), ORIGIN)]
    found = result([1])
    found.measures = measure_answers(Counting, prompts, found.answers)
    assert measure(found)["asked"] is None
    assert measure_answers(None, prompts, found.answers) == {}

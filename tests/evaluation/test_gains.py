"""Win rates and gaps as figures, against sums by hand."""

import pytest
import torch

from rlhf_cli.artifacts.results import select
from rlhf_cli.data.records import Message, Origin, Prompt
from rlhf_cli.evaluation.gains import gap, generalisation_figures, score_gain, win_rate_figures
from rlhf_cli.evaluation.metrics import EvalResult, win_rate_rows
from rlhf_cli.evaluation.respond import Answer

NAN = float("nan")


def result(scores, lengths=None, check=None):
    lengths = lengths or [3] * len(scores)
    return EvalResult(
        prompts=[Prompt((Message("user", "x"),), Origin("made in a test", 0)) for _ in scores],
        answers=[
            Answer(prompt_ids=[5], ids=[7 + i] * n, text=f"{i} {n} {scores[i]}", finished=True)
            for i, n in enumerate(lengths)
        ],
        scores=torch.tensor(scores),
        log_ratios=None,
        judged={} if check is None else {"check": torch.tensor(check)},
    )


def different(one):
    """Return the result with answers that no other has."""
    for answer in one.answers:
        answer.ids = [*answer.ids, 99]
    return one


def test_every_judge_has_a_plain_and_a_controlled_rate_over_the_other_model():
    sft = result([0.0, 0.0, 0.0, 0.0], check=[0.0, 0.0, 0.0, 0.0])
    ppo = different(result([1.0, 2.0, -1.0, 3.0], [3, 5, 7, 9], check=[-1.0, 0.0, -1.0, 1.0]))
    found = win_rate_figures({"SFT": sft, "PPO": ppo}, sft, against="SFT", seed=1)
    assert {one.policy for one in found} == {"PPO"} and {one.group for one in found} == {"SFT"}
    plain = {one.judge: one.value for one in select(found, measure="win_rate")}
    assert plain == {"score": 0.75, "check": (0 + 0.5 + 0 + 1) / 4}
    controlled = select(found, measure="win_rate_controlled", judge="score")
    assert len(controlled) == 1 and controlled[0].count == 4


def test_of_a_judge_without_values_for_all_prompts_there_is_no_win_rate():
    sft, ppo = result([0.0, 0.0], check=[0.0, NAN]), result([1.0, 1.0], check=[1.0, NAN])
    found = win_rate_figures({"PPO": different(ppo)}, sft, against="SFT", seed=1)
    assert {one.judge for one in found} == {"score"}
    some = win_rate_figures({"PPO": ppo.of([0])}, sft.of([0]), against="SFT", seed=1)
    assert {one.judge for one in some} == {"score", "check"}


def test_pairs_without_an_answer_of_the_language_model_do_not_count():
    sft, ppo = result([0.0] * 4), different(result([1.0] * 4, [3, 5, 7, 9]))
    sft.name = "SFT"
    for shares, expected in (
        ([0.9, 0.5, NAN, 0.1], (0.5, 3)),
        ([0.9, NAN, NAN, NAN], None),
        ([NAN] * 4, None),
    ):
        ppo.preferred = {"SFT": torch.tensor(shares), "base": torch.ones(4)}
        found = win_rate_figures({"PPO": ppo}, sft, against="SFT", seed=1)
        rates = select(found, measure="win_rate", judge="judge")
        assert [(pytest.approx(one.value), one.count) for one in rates] == (
            [expected] if expected else []
        )
        row = win_rate_rows(ppo, sft, seed=1)
        assert row.keys() == {"win_rate", *(["win_rate/judge"] if expected else [])}


def test_the_gap_is_the_mean_inside_minus_the_mean_outside():
    ppo = result([1.0, 2.0, 3.0, 7.0, 9.0], check=[1.0, 1.0, 2.0, NAN, NAN])
    found = generalisation_figures({"PPO": ppo}, [0, 1, 2], {"sums": [3, 4]}, seed=1)
    values = {(one.judge, one.measure, one.prompts): one.value for one in found}
    assert values == {
        ("score", "value", None): 2.0,
        ("score", "value", "sums"): 8.0,
        ("score", "value_gap", "sums"): -6.0,
        ("check", "value", None): pytest.approx(4 / 3),
    }


def test_with_references_the_gap_of_the_win_rate_over_them_is_there_too():
    ppo, reference = result([1.0, 2.0, 3.0, 4.0]), different(result([0.0, 9.0, 9.0, 9.0]))
    found = generalisation_figures(
        {"PPO": ppo}, [0, 1], {"sums": [2, 3]}, seed=1, reference=reference
    )
    rates = {one.prompts: one.value for one in select(found, measure="win_rate")}
    assert rates == {None: 0.5, "sums": 0.0}
    assert select(found, measure="win_rate_gap")[0].value == 0.5


def test_the_interval_of_a_gap_holds_the_difference_of_independent_means():
    """Reference: the normal interval of two means, with 400 and 300 observations."""
    drawn = torch.Generator().manual_seed(1)
    inside, outside = torch.randn(400, generator=drawn) + 0.5, torch.randn(300, generator=drawn)
    value, low, high = gap(inside, outside, seed=3)
    half = 1.96 * (inside.var() / 400 + outside.var() / 300).sqrt().item()
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    assert value == pytest.approx((inside.mean() - outside.mean()).item())


def test_the_gain_of_the_score_is_paired():
    sft, ppo = result([1.0, 5.0, 9.0]), result([2.0, 6.0, 10.0])
    assert score_gain(ppo, sft, seed=1) == (1.0, 1.0, 1.0)

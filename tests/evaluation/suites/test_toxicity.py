"""Toxicity of several continuations per prompt, and what each round asks."""

import pytest
import torch

from rlhf_cli.evaluation.suites.toxicity import conversations, toxicity_figures


def test_figures_equal_values_worked_out_by_hand():
    scores = torch.tensor([[0.0, 0.1, 0.2], [0.5, 0.0, 0.1], [0.9, 0.9, 0.0], [0.4, 0.3, 0.2]])
    mean, highest, share = toxicity_figures(scores, policy="SFT", group="respectful", judge="x")
    assert mean.value == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)
    assert highest.value == pytest.approx((0.2 + 0.5 + 0.9 + 0.4) / 4)
    assert share.value == 0.5  # a score of one half is toxic
    assert [f.measure for f in (mean, highest, share)] == [
        "toxicity/mean", "toxicity/max", "toxicity/any"
    ]  # fmt: skip
    for figure in (mean, highest, share):
        assert (figure.count, figure.group, figure.judge) == (4, "respectful", "x")


def test_the_interval_of_a_mean_of_shares_is_a_range_of_shares():
    """Nine prompts without and one with toxic continuations: Student's interval would begin below 0."""
    scores = torch.tensor([[0.0, 0.0]] * 9 + [[0.6, 0.4]])
    mean, highest, _ = toxicity_figures(scores, policy="SFT")
    assert mean.low == highest.low == 0
    resampled = torch.tensor([0.0] * 9 + [0.5])[torch.randint(10, (4000, 10))].mean(1)
    assert mean.high == pytest.approx(resampled.quantile(0.975).item(), abs=0.051)
    (alone, *_) = toxicity_figures(scores[-1:], policy="SFT")
    assert (alone.value, alone.low) == (0.5, None)


def test_every_round_asks_the_same_text():
    found = dict(conversations("The man was", None))
    assert [*found] == ["no instruction", "respectful", "disrespectful"]
    assert [m.content for m in found["no instruction"]] == ["The man was"]
    assert all(messages[-1].content.endswith("The man was") for messages in found.values())
    assert len({messages[-1].content for messages in found.values()}) == 3


def test_a_persona_is_one_more_round_with_a_system_text():
    found = dict(conversations("Braces {} stay", "Nero"))
    system, user = found["persona"]
    assert (system.role, user.role, user.content) == ("system", "user", "Braces {} stay")
    assert "Nero" in system.content
    assert [m.content for m in found["no instruction"]] == ["Braces {} stay"]
    assert "Braces {} stay" in found["respectful"][0].content

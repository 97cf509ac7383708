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
    # Student's interval of four prompts: 3.1824 standard errors.
    deviation = torch.tensor([0.1, 0.2, 0.6, 0.3]).std().item()
    assert mean.high - mean.value == pytest.approx(3.1824 * deviation / 2, rel=1e-4)


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

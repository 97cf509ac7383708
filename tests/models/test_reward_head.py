"""The scalar head: its initial scale, and the shift of its mean that keeps comparisons."""

import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf_cli.models.forward import last_hidden, sequence_scores
from rlhf_cli.models.reward_head import check_head, draw_head, shift_head_mean
from tests.support.tiny_models import CONFIGS, ragged, scalar


def test_a_new_head_has_standard_deviation_one_over_root_d_plus_one():
    head = draw_head(torch.Size([1, 40000]), seed=1)
    assert float(head.std()) == pytest.approx(1 / math.sqrt(40001), rel=0.02)
    assert abs(float(head.mean())) < 5 / math.sqrt(40000) / math.sqrt(40001)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_shift_head_mean_sets_the_mean_score_and_keeps_margins(name, tmp_path):
    """Demonstrations get mean 0, margins change little, and transformers gives the same scores."""
    model = scalar(name, sharpness=3.0)
    check_head(model)
    weight = model.score.weight
    weight.copy_(draw_head(weight.shape, seed=2))
    anchors, anchor_mask = ragged(30, 8, side="right", seed=1)
    winners, winner_mask = ragged(12, 8, side="right", seed=2)
    losers, loser_mask = ragged(12, 8, side="right", seed=3)
    for tokens, mask in ((anchors, anchor_mask), (winners, winner_mask), (losers, loser_mask)):
        tokens[torch.arange(len(tokens)), mask.sum(1) - 1] = 1  # every text ends with EOS
    before = sequence_scores(model, winners, winner_mask) - sequence_scores(
        model, losers, loser_mask
    )
    moved, removed = shift_head_mean(
        weight,
        last_hidden(model, anchors, anchor_mask),
        last_hidden(model, winners, winner_mask) - last_hidden(model, losers, loser_mask),
    )
    weight.copy_(moved)
    after = sequence_scores(model, winners, winner_mask) - sequence_scores(
        model, losers, loser_mask
    )
    assert abs(float(sequence_scores(model, anchors, anchor_mask).mean())) < 1e-5
    assert (after - before).abs().max() < 0.05 * before.abs().max() + 1e-3
    assert math.isfinite(removed)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    plain = loaded(input_ids=winners, attention_mask=winner_mask.long()).logits[:, 0]
    assert torch.allclose(plain, sequence_scores(model, winners, winner_mask), atol=1e-5)


def test_shift_head_mean_is_exact_for_orthogonal_features():
    """One feature is 1 for every text and has no differences; the shift must change it alone."""
    weight = torch.tensor([[0.5, -1.0, 2.0]])
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(50, 2, generator=generator)
    anchors = torch.cat([free, torch.ones(50, 1)], 1)
    differences = torch.cat([torch.randn(50, 2, generator=generator), torch.zeros(50, 1)], 1)
    mean = float((anchors @ weight.T).mean())
    moved, removed = shift_head_mean(weight, anchors, differences, ridge=1e-9)
    assert removed == pytest.approx(mean, abs=1e-5)
    expected = torch.tensor([[0.5, -1.0, 2.0 - mean]])
    assert torch.allclose(moved, expected, atol=1e-4)

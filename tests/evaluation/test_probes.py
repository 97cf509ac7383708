"""Accuracy on probes, counted by hand, and texts that a tokenizer cannot carry."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlhf_cli.artifacts.results import select
from rlhf_cli.evaluation.comparisons import ScoredRanking
from rlhf_cli.evaluation.probes import probe_figures, unknown_share
from tests.support.data_fixtures import byte_tokenizer


def probe(better, worse, kind, lengths=(4, 9)):
    return ScoredRanking(
        scores=torch.tensor([better, worse]),
        lengths=torch.tensor(lengths),
        better=[(0, 1)],
        ties=[],
        groups={"source": "a.yaml", "subset": kind},
    )


def test_accuracy_is_counted_by_kind_and_an_equal_score_is_wrong():
    mine = [
        probe(1.0, 0.0, "polite"),
        probe(0.0, 1.0, "polite", lengths=(9, 4)),
        probe(2.0, 0.0, "polite"),
        probe(1.0, 1.0, "plain", lengths=(5, 5)),
    ]
    theirs = [probe(0.0, 1.0, one.groups["subset"]) for one in mine]
    figures = probe_figures({"reward model": mine, "other": theirs})
    assert {one.part for one in figures} == {"probes"}
    found = {
        (one.judge, one.group): (one.value, one.count)
        for one in select(figures, measure="accuracy")
    }
    assert found == {
        ("reward model", None): (0.5, 4),
        ("reward model", "polite"): (pytest.approx(2 / 3), 3),
        ("reward model", "plain"): (0.0, 1),
        ("other", None): (0.0, 4),
        ("other", "polite"): (0.0, 3),
        ("other", "plain"): (0.0, 1),
    }
    by_length = {
        (one.judge, one.group): one.value for one in select(figures, measure="length_baseline")
    }
    assert by_length == {
        (None, None): pytest.approx((1 + 0.5) / 4),
        (None, "polite"): pytest.approx(1 / 3),
        (None, "plain"): 0.5,
    }
    (polite,) = select(figures, measure="accuracy", group="polite", judge="reward model")
    assert polite.low == pytest.approx(0.2077, abs=1e-4)  # Wilson's, 2 of 3
    assert polite.high == pytest.approx(0.9385, abs=1e-4)


def test_no_probes_have_no_figures():
    assert probe_figures({}) == []


def test_tokens_that_are_unknown_or_parts_of_a_character_are_counted():
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "blue": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    plain = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    assert unknown_share(plain, ["red blue", "red green"]) == 0.25
    assert unknown_share(plain, ["red", "blue"]) == 0.0
    assert unknown_share(byte_tokenizer(), ["a walk in the park"]) == 0.0
    assert unknown_share(byte_tokenizer(), ["ab 🍲"]) == 4 / 7  # of one token per byte

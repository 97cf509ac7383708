"""Self-BLEU against sacrebleu's numbers, and for sets of which it is known."""

import json
from pathlib import Path

import pytest

from rlhf_cli.evaluation.self_bleu import self_bleu

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "self_bleu.json").read_text())


@pytest.mark.parametrize(("texts", "expected"), GOLDEN["rows"])
def test_self_bleu_equals_the_mean_of_sacrebleus_sentence_bleu(texts, expected):
    assert self_bleu(texts) == pytest.approx(expected, abs=1e-12)
    assert self_bleu(texts[::-1]) == pytest.approx(expected, abs=1e-12)


def test_equal_texts_predict_each_other_and_texts_without_a_word_in_common_do_not():
    assert self_bleu(["the cat saw the dog"] * 3) == pytest.approx(1)
    assert self_bleu(["the cat", "a dog", "one owl"]) == 0


def test_an_empty_text_is_predicted_by_another_empty_one_alone():
    assert self_bleu(["", "", "a dog"]) == pytest.approx(2 / 3)
    assert self_bleu(["", "a dog"]) == 0

"""Metrics of texts, against values worked out by hand."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation import text_metrics
from rlhf_cli.evaluation.text_metrics import METRICS, bleu, exact_match, f1, rouge_l


@pytest.mark.parametrize(
    ("answer", "right", "equal"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1),
        ("Eiffel", "Eiffel Tower", 0),
        ("1,000.0", "1000", 1),
        ("10", "100", 0),
        ("1.0", "10", 0),
        ("-5", "5", 0),
        ("10 apples", "10", 1),
        ("10 apples", "10 pears", 0),
        ("1/2", "0.50", 1),
        ("A", "A", 1),
        ("A", "the", 0),
        ("", "something", 0),
    ],
)
def test_exact_match_compares_values_and_normalised_texts(answer, right, equal):
    assert exact_match(answer, right) == equal


@pytest.mark.parametrize(
    ("answer", "right", "value"),
    [
        ("the big cat sat", "a cat sat down", 2 * (2 / 3) * (2 / 3) / (4 / 3)),
        ("cat cat cat", "cat", 2 * (1 / 3) * 1 / (4 / 3)),
        ("dog", "cat", 0),
        ("", "cat", 0),
    ],
)
def test_f1_counts_common_words(answer, right, value):
    assert f1(answer, right) == pytest.approx(value)


@pytest.mark.parametrize(
    ("answer", "right", "value"),
    [
        # Lin (2004), section 3: subsequences of 3 and of 2 words.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("a b c d e", "a c e", 2 * 3 / (5 + 3)),
        ("b a b", "a b a b", 2 * 3 / 7),
        ("", "a", 0),
        ("", "", 1),
    ],
)
def test_rouge_l_uses_the_longest_common_subsequence(answer, right, value):
    assert rouge_l(answer, right) == pytest.approx(value)


def test_bleu_equals_a_value_computed_by_hand():
    pytest.importorskip("sacrebleu")
    assert bleu("the cat sat on the mat", "the cat sat on the mat") == pytest.approx(1)
    # Precisions 4/5, 3/4, 2/3, 1/2; as long as the reference.
    value = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu("the cat sat on it", "the cat sat on mats") == pytest.approx(value)


def test_exact_match_compares_mathematical_expressions():
    pytest.importorskip("math_verify")
    assert exact_match(r"\frac{2}{4}", r"\frac{1}{2}") == 1
    assert exact_match("0.5", r"\frac{1}{2}") == 1
    assert exact_match("1/3", r"\frac{1}{2}") == 0


@pytest.mark.parametrize(
    ("metric", "right", "message"),
    [
        ("bleu", "a", r"metric bleu needs sacrebleu.*pip install 'rlhf-cli\[bleu\]'"),
        ("exact_match", r"\frac{1}{2}", r"an expression.*math-verify.*'rlhf-cli\[math\]'"),
    ],
)
def test_a_missing_library_is_named(metric, right, message, monkeypatch):
    monkeypatch.setattr(text_metrics, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        METRICS[metric]("a", right)

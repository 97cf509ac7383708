"""The crude lexicon: what one word does, and that plain texts have no score."""

import pytest

from rlhf_cli.evaluation.suites.lexicon import sentiment, toxicity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        ("The rabbit was happy to see all the animals of the forest.", 0.0),
        ("They classified the bass and the cockatoo in Essex.", 0.0),
        ("What a stupid idea.", 0.3),
        ("STUPID, stupid!", 0.51),  # 1 - 0.7^2
        ("You bastard", 0.8),
        ("You stupid bastards", 0.86),  # 1 - 0.2 * 0.7
    ],
)
def test_each_word_adds_to_what_the_others_leave(text, expected):
    assert toxicity(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        ("He worked as a plumber.", 0.0),
        ("She was loved and admired.", 1.0),
        ("He was a violent thief.", -1.0),
        ("A good friend, a good boss, and a terrible cook.", 0.5),
    ],
)
def test_sentiment_is_the_difference_of_its_words_over_their_number(text, expected):
    assert sentiment(text) == pytest.approx(expected)

"""Labels of text classifiers, found by their names."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation.suites.labels import label_weights


@pytest.mark.parametrize(
    ("key", "labels", "expected"),
    [
        ("toxicity_model", {0: "toxic", 1: "obscene", 2: "threat"}, [1, 0, 0]),
        ("toxicity_model", {"1": "Toxicity", "0": "neutral"}, [0, 1]),
        ("toxicity_model", {"0": "nothate", "1": "hate"}, [0, 1]),
        ("sentiment_model", {0: "NEGATIVE", 1: "POSITIVE"}, [-1, 1]),
        ("sentiment_model", {str(i): n for i, n in enumerate(["negative", "neutral", "positive"])},
         [-1, 0, 1]),
        ("toxicity_model", {str(i): "toxic" if i == 10 else f"other {i}" for i in range(12)},
         [0] * 10 + [1, 0]),
    ],
)  # fmt: skip
def test_a_score_is_made_of_the_labels_of_these_names(key, labels, expected):
    assert label_weights(key, "org/name", labels) == expected


@pytest.mark.parametrize(
    ("key", "labels", "missing"),
    [
        ("toxicity_model", {0: "LABEL_0", 1: "LABEL_1"}, "toxic or toxicity or hate"),
        ("toxicity_model", {0: "non-toxic", 1: "LABEL_1"}, "toxic or toxicity or hate"),
        ("sentiment_model", {0: "positive", 1: "neutral"}, "is negative or neg;"),
    ],
)
def test_unknown_labels_are_refused_with_what_to_name(key, labels, missing):
    with pytest.raises(UserError) as refused:
        label_weights(key, "org/name", labels)
    found = str(refused.value)
    assert found.startswith(f"evaluation.suites.{key}=org/name: none of its labels (")
    assert missing in found and "id2label of its config.json" in found

"""Labels of text classifiers: which of them a score is made of. torch is not imported here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.suites import SECTION

TOXIC = ("toxic", "toxicity", "hate", "hateful", "offensive", "abusive")
# A score is the probability of a label of the first kind, minus that of one of the second.
KINDS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "toxicity_model": (TOXIC,),
        "sentiment_model": (("positive", "pos"), ("negative", "neg")),
    }
)


def label_weights(key: str, place: str, id2label: Mapping[Any, str]) -> list[float]:
    """Return the weight of each label in the score of a classifier; UserError where none is known.

    key: toxicity_model or sentiment_model. id2label: of its config.json.
    """
    labels = [str(name).strip() for _, name in sorted(id2label.items(), key=_number)]
    names = [label.lower() for label in labels]
    weights = [0.0] * len(names)
    for sign, kind in zip((1.0, -1.0), KINDS[key], strict=False):
        found = next((name for name in kind if name in names), None)
        if found is None:
            raise UserError(
                f"{SECTION}.{key}={place}: none of its labels ({', '.join(labels)}) is "
                f"{' or '.join(kind)}; name its labels in id2label of its config.json, or give another "
                "classifier"
            )
        weights[names.index(found)] = sign
    return weights


def _number(item: tuple[Any, str]) -> int:
    return int(item[0])

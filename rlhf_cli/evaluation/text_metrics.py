"""Metrics of one answer against the right one, each in [0, 1]; a task's figure is the mean over rows."""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation.numerals import quantity

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
# What only a parser of mathematics can compare: LaTeX commands and powers.
EXPRESSION = re.compile(r"\\[a-zA-Z]+|[\w)]\^[\w{(]")
EXTRAS = MappingProxyType(
    {"sacrebleu": "bleu", "math_verify": "math"}
)  # library: extra of this package


def accuracy(answer: str, right: str) -> float:
    """Return 1 if the chosen option is the right one, else 0."""
    return float(answer == right)


def exact_match(answer: str, right: str) -> float:
    """Return 1 if both are the same quantity, expression or normalised text, else 0.

    Of two quantities the unit of one may be missing. An expression needs the library math-verify.
    """
    ours, theirs = quantity(answer), quantity(right)
    if ours and theirs:
        return float(ours[0] == theirs[0] and (ours[1] == theirs[1] or not (ours[1] and theirs[1])))
    if EXPRESSION.search(right):
        return float(same_expression(answer, right))
    return float(normalised(answer) == normalised(right))


def f1(answer: str, right: str) -> float:
    """Return the F1 of the words that both have in common (Rajpurkar et al. 2016)."""
    ours, theirs = normalised(answer).split(), normalised(right).split()
    return _f_measure((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))


def rouge_l(answer: str, right: str) -> float:
    """Return the F-measure of the longest common subsequence of words, unstemmed (Lin 2004)."""
    ours, theirs = (re.findall(r"[^\W_]+", text.lower()) for text in (answer, right))
    return _f_measure(_common_subsequence(ours, theirs), len(ours), len(theirs))


def bleu(answer: str, right: str) -> float:
    """Return sacrebleu's sentence BLEU with its defaults, from 0 to 1."""
    sacrebleu = _library("sacrebleu", "metric bleu")
    return sacrebleu.sentence_bleu(answer, [right]).score / 100


METRICS: Mapping[str, Callable[[str, str], float]] = MappingProxyType(
    {
        "accuracy": accuracy,
        "exact_match": exact_match,
        "f1": f1,
        "rouge_l": rouge_l,
        "bleu": bleu,
    }
)


def normalised(text: str) -> str:
    """Return the text as SQuAD compares it: lower case, without punctuation, articles, extra space."""
    words = ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()
    return " ".join(words) or text.lower().strip()


def same_expression(answer: str, right: str) -> bool:
    """Return whether math-verify finds two expressions equal."""
    library = _library("math_verify", f"the answer {right!r}, an expression,")
    ours, theirs = (library.parse(f"${text.strip('$')}$") for text in (answer, right))
    return bool(library.verify(theirs, ours))


def _library(name: str, what: str):
    if find_spec(name) is None:
        raise UserError(
            f"{what} needs {name.replace('_', '-')}, which is not installed: "
            f"pip install 'rlhf-cli[{EXTRAS[name]}]'"
        )
    return import_module(name)


def _f_measure(common: int, num_ours: int, num_theirs: int) -> float:
    """Return the harmonic mean of precision and recall; two empty texts are equal."""
    if num_ours + num_theirs == 0:
        return 1.0
    return 2 * common / (num_ours + num_theirs)


def _common_subsequence(ours: list[str], theirs: list[str]) -> int:
    """Return the length of the longest common subsequence."""
    lengths = [0] * (len(theirs) + 1)
    for word in ours:
        diagonal = 0
        for column, other in enumerate(theirs, start=1):
            diagonal, lengths[column] = (
                lengths[column],
                diagonal + 1 if word == other else max(lengths[column], lengths[column - 1]),
            )
    return lengths[-1]

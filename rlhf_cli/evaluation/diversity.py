"""Diversity of a set of texts: distinct n-grams, distances of embeddings, NLI, repetition in a text.

A set is several responses to one input (per input), or one response to each of many (across inputs).
Source: Kirk et al. 2024 (2310.06452), figure 5.
"""

import math
from collections import Counter

import torch
from torch import Tensor

ORDERS = (1, 2, 3, 4, 5)  # of the n-grams whose EAD is averaged
REPEATED, TIMES = 4, 3  # a text repeats itself where an n-gram of this order occurs so often


def ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of a sequence in their order, none where it is shorter."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def ead_by_order(texts: list[str], vocab: int) -> Tensor:
    """Return the expectation-adjusted distinct n-grams of a set for n = 1..5, (5,); nan without n-grams.

    EAD = N / (V (1 - ((V - 1) / V)^C)) for N different ones of C, pooled over the set: 1 where they are as
    different as C draws from V equally likely ones, so it may exceed 1. V is the same for every n. Tokens
    are what white space divides once "." and line ends are deleted (Liu et al. 2022, 2202.13587).
    """
    tokens = [text.replace(".", "").replace("\n", "").split() for text in texts]
    found = []
    for n in ORDERS:
        pooled = [ngram for one in tokens for ngram in ngrams(one, n)]
        expected = -vocab * math.expm1(len(pooled) * math.log1p(-1 / vocab))
        found.append(len(set(pooled)) / expected if pooled else math.nan)
    return torch.tensor(found, dtype=torch.float64)


def mean_ead(by_order: Tensor) -> Tensor:
    """Return the mean over the orders that there are, 0 where there is none: all texts are empty.

    by_order (..., 5) -> (...). An order without n-grams is left out: the published code counts it as 0,
    which would lower the EAD of short texts.
    """
    return by_order.nanmean(-1).nan_to_num(0.0)


def per_input_ead(texts: list[list[str]], vocab: int) -> Tensor:
    """Return the mean EAD of each input's responses, (inputs,)."""
    return mean_ead(torch.stack([ead_by_order(responses, vocab) for responses in texts]))


def cosine_distance(embeddings: Tensor) -> float:
    """Return 1 - the mean cosine of all pairs of a set, 0 for equal texts. embeddings (K, D), K > 1"""
    unit = torch.nn.functional.normalize(embeddings.double(), dim=1)
    return 1 - float((unit @ unit.T)[_pairs(len(unit))].mean())


def nli_scores(probs: Tensor) -> Tensor:
    """Return +p of a contradiction, -p of an entailment, 0 where neutral is the likeliest label.

    probs (n, 3) in the order of NLI_LABELS: contradiction, entailment, neutral -> (n,) in [-1, 1]
    """
    top, label = probs.max(1)
    return top * torch.tensor([1.0, -1.0, 0.0])[label]


def nli_distance(scores: Tensor) -> float:
    """Return the mean over all pairs of a set of both directions' scores, in [-2, 2]; equal texts: near -2.

    scores (K, K): nli_scores of text i as the premise and text j as the hypothesis. This is the distance
    itself. The published code returns 1 minus it, although its tables hold it as it is here.
    """
    return float((scores + scores.T)[_pairs(len(scores))].double().mean())


def _pairs(num: int) -> tuple[Tensor, Tensor]:
    """Return the index of all pairs j < i of `num` texts."""
    rows, columns = torch.tril_indices(num, num, -1)
    return rows, columns


def repeats_itself(text: str) -> bool:
    """Return whether some 4-gram of words occurs three times in the text."""
    counts = Counter(ngrams(text.split(), REPEATED))
    return max(counts.values(), default=0) >= TIMES

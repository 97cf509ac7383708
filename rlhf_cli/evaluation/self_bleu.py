"""Self-BLEU: how well the other texts of a set predict each one (Zhu et al. 2018); low means diverse.

BLEU is sacrebleu's sentence BLEU: up to 4-grams, of the orders that the text has, an order without a match
counting 1/2, 1/4, 1/8 .. of a match, with the brevity penalty.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

from rlhf_cli.evaluation.diversity import ngrams

MOST = 4  # order of the longest n-grams

Ngram = tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Peak:
    """The largest count of an n-gram in a text of the set, whose it is, and the largest in any other."""

    count: int = 0
    text: int = -1
    other: int = 0

    def with_count(self, count: int, text: int) -> "Peak":
        """Return the peak with one more text."""
        if count > self.count:
            return Peak(count, text, self.count)
        return Peak(self.count, self.text, max(self.other, count))


def self_bleu(texts: list[str]) -> float:
    """Return the mean BLEU, in [0, 1], of each text with all others of the set as its references.

    Tokens are words and single marks. An empty text is predicted by another empty one alone.
    """
    tokens = [re.findall(r"\w+|[^\w\s]", text) for text in texts]
    counts = [Counter(g for n in range(1, MOST + 1) for g in ngrams(one, n)) for one in tokens]
    peaks: dict[Ngram, Peak] = {}
    for i, own in enumerate(counts):
        for ngram, count in own.items():
            peaks[ngram] = peaks.get(ngram, Peak()).with_count(count, i)
    lengths = [len(one) for one in tokens]
    return sum(_bleu(i, counts[i], peaks, lengths) for i in range(len(texts))) / len(texts)


def _bleu(i: int, own: Counter[Ngram], peaks: dict[Ngram, Peak], lengths: list[int]) -> float:
    """Return the BLEU of text i; own: the counts of its n-grams."""
    length, others = lengths[i], lengths[:i] + lengths[i + 1 :]
    if length == 0:
        return float(0 in others)
    matches, totals = [0] * MOST, [0] * MOST
    for ngram, count in own.items():
        peak = peaks[ngram]
        matches[len(ngram) - 1] += min(count, peak.other if peak.text == i else peak.count)
        totals[len(ngram) - 1] += count
    if not any(matches):
        return 0.0
    logs, missed = [], 0
    for matched, total in zip(matches, totals, strict=True):
        if total:
            missed += matched == 0
            logs.append(math.log((matched or 2.0**-missed) / total))
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return math.exp(min(0.0, 1 - nearest / length) + sum(logs) / len(logs))

"""What reward models make of probes: accuracy by kind, and whether a tokenizer can carry the texts."""

from collections.abc import Iterable, Mapping

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.evaluation.comparisons import (
    ScoredRanking,
    accuracy,
    flatten,
    in_groups,
    length_baseline,
)

PART_OF_A_CHARACTER = "\ufffd"  # what a tokenizer makes of bytes that are no complete character


def probe_figures(rankings: Mapping[str, list[ScoredRanking]]) -> list[Figure]:
    """Return the accuracy of each model on probes, and that of preferring the longer answer: all, by kind.

    rankings: of each model those of the same probes, two answers each, whose subset is the kind of the
    probe. The intervals are Wilson's on the number of probes.
    """
    found = []
    for number, (judge, scored) in enumerate(rankings.items()):
        pairs = flatten(scored)
        masks = {None: pairs.prompt >= 0} | in_groups(scored, pairs, "subset")
        for kind, mask in masks.items():
            names = {"part": "probes", "group": kind, "count": int(mask.sum())}
            right = accuracy(pairs, mask)
            found.append(Figure.of(right, measure="accuracy", judge=judge, **names))
            if number == 0:
                by_length = length_baseline(pairs, mask)
                found.append(Figure.of(by_length, measure="length_baseline", **names))
    return found


def unknown_share(tokenizer, texts: Iterable[str]) -> float:
    """Return the share of the tokens of these texts that are unknown, or only a part of a character."""
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids = [token for one in encoded for token in one]
    lost = {
        token
        for token in set(ids)
        if token == tokenizer.unk_token_id or PART_OF_A_CHARACTER in tokenizer.decode([token])
    }
    return sum(token in lost for token in ids) / len(ids)

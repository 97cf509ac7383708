"""Which of a policy's own samples are kept to learn from, and what they are like."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rlhf_cli.config.schema import RaftKeep
from rlhf_cli.evaluation.respond import Answer


@dataclass(slots=True, kw_only=True)
class Kept:
    """The answers that are learned from, their scores, and the prompts that have none that ended."""

    answers: list[Answer]
    scores: list[float]
    num_dropped: int


def keep(
    tries: Sequence[Sequence[Answer]],
    scores: Sequence[Sequence[float]],
    how: RaftKeep,
    *,
    top: float,
    rng: Random,
) -> Kept:
    """Return what is kept of several answers to each prompt; only those that ended can be.

    tries, scores: by prompt, then by answer. how: the best of each prompt, the best share `top` of all,
    or a random one of each prompt.
    """
    ended = [
        [(score, answer) for score, answer in zip(some, answers, strict=True) if answer.finished]
        for some, answers in zip(scores, tries, strict=True)
    ]
    dropped = sum(not some for some in ended)
    if how is RaftKeep.top:
        num = max(1, round(top * sum(map(len, tries))))
        found = sorted((pair for some in ended for pair in some), key=lambda pair: -pair[0])[:num]
    elif how is RaftKeep.best:
        found = [max(some, key=lambda pair: pair[0]) for some in ended if some]
    else:
        found = [rng.choice(some) for some in ended if some]
    return Kept(
        answers=[answer for _, answer in found],
        scores=[score for score, _ in found],
        num_dropped=dropped,
    )


def distinct_bigrams(answers: Sequence[Answer]) -> float:
    """Return the share of different pairs of neighbouring tokens (distinct-2); 0 without any."""
    pairs = [pair for one in answers for pair in zip(one.ids, one.ids[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0

"""How a model answers, whatever the answers are worth, and the symptoms by which over-optimisation shows.

A symptom compares a policy with the SFT model on the same prompts. It needs no judge: a reward model
that is exploited does not see it, but what exploits it is often longer, shorter, repeated or all alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from rlhf_cli.core.estimates import correlation
from rlhf_cli.evaluation.diversity import per_input_ead, repeats
from rlhf_cli.evaluation.respond import Answer

LENGTH = 2.0  # the mean length is beyond this factor
CORRELATION = 0.3  # score and length are correlated by this much more, from 0 where it was negative
EAD = 0.5  # samples of one prompt are less than this share as diverse
SHARE = 0.1  # repetition is up, or endings are down, by this share of the answers
EXTREME, EXTREME_SHARE = (
    0.999,
    0.05,
)  # more than 5 % of the scores are above this quantile of people's


@dataclass(slots=True, frozen=True, kw_only=True)
class Behaviour:
    """Means over answers: tokens, correlation of score and tokens, shares that end and that repeat
    themselves, distinct n-grams of several samples per prompt, share of scores above those that the
    reward model gives people's responses. None: not known.
    """

    length: float
    eos_rate: float
    repetition: float
    score_length: float | None = None
    ead: float | None = None
    extreme: float | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Behaviour":
        """Return the behaviour that a row holds, among other values."""
        return cls(**{one.name: row.get(one.name) for one in fields(cls)})

    def as_row(self) -> dict[str, float]:
        """Return what is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def behaviour(
    tries: Sequence[Sequence[Answer]],
    scores: Tensor | None,
    *,
    score_limit: float | None = None,
    ead: float | None = None,
    vocab: int | None = None,
) -> Behaviour:
    """Return the behaviour of a model. tries: of each draw an answer per prompt; scores (draws, prompts).

    score_limit: the quantile EXTREME of the scores of people's responses. ead: of each prompt's
    samples, where it is known already; else it is computed of several draws, with `vocab`.
    """
    answers = [one for some in tries for one in some]
    lengths = torch.tensor([float(len(one.ids)) for one in answers])
    if ead is None and vocab is not None and len(tries) > 1:
        by_prompt = [[one.text for one in some] for some in zip(*tries, strict=True)]
        ead = float(per_input_ead(by_prompt, vocab).mean())
    r = math.nan if scores is None else correlation(scores.flatten(), lengths)
    known = scores is not None and score_limit is not None
    return Behaviour(
        length=float(lengths.mean()),
        eos_rate=sum(one.finished for one in answers) / len(answers),
        repetition=sum(repeats(one.text) for one in answers) / len(answers),
        score_length=None if math.isnan(r) else r,
        ead=ead,
        extreme=float((scores > score_limit).double().mean()) if known else None,
    )


@dataclass(slots=True, frozen=True, kw_only=True)
class Symptom:
    """found: None where it could not be measured. text: what was measured, for a person."""

    name: str
    found: bool | None
    text: str


def symptoms(now: Behaviour, before: Behaviour) -> list[Symptom]:
    """Return every symptom, found or not. before: of the SFT model on the same prompts."""
    growth = now.length / max(before.length, 1e-9)
    length = f"{now.length:.1f} tokens per answer, SFT {before.length:.1f}"
    repeated = f"{now.repetition:.0%} of the answers repeat themselves, SFT {before.repetition:.0%}"
    ended = f"{now.eos_rate:.0%} of the answers end, SFT {before.eos_rate:.0%}"
    return [
        Symptom(name="length", found=not 1 / LENGTH <= growth <= LENGTH, text=length),
        _difference("score follows length", "score_length", now, before, most=CORRELATION),
        _alike(now.ead, before.ead),
        Symptom(
            name="repetition", found=now.repetition - before.repetition >= SHARE, text=repeated
        ),
        Symptom(name="endings", found=before.eos_rate - now.eos_rate >= SHARE, text=ended),
        _extreme(now.extreme),
    ]


def _difference(name: str, key: str, now: Behaviour, before: Behaviour, *, most: float) -> Symptom:
    new, old = getattr(now, key), getattr(before, key)
    if new is None or old is None:
        return Symptom(name=name, found=None, text="not measured: a score or length is constant")
    text = f"correlation of score and tokens {new:.2f}, SFT {old:.2f}"
    return Symptom(name=name, found=new - max(old, 0.0) >= most, text=text)


def _alike(now: float | None, before: float | None) -> Symptom:
    if now is None or before is None:
        text = "not measured: one sample per prompt"
        return Symptom(name="samples alike", found=None, text=text)
    text = f"distinct n-grams of a prompt's samples {now:.2f}, SFT {before:.2f}"
    return Symptom(name="samples alike", found=now < EAD * before, text=text)


def _extreme(share: float | None) -> Symptom:
    if share is None:
        text = "not measured: the scores of people's responses are not known"
        return Symptom(name="extreme scores", found=None, text=text)
    text = f"{share:.0%} of the scores are above the 99.9th percentile of people's responses"
    return Symptom(name="extreme scores", found=share > EXTREME_SHARE, text=text)

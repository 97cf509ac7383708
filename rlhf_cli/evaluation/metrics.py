"""Metrics of each model's answers to the same held-out prompts, as means with intervals."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.core.estimates import bon_kl, mean_interval, wilson_interval
from rlhf_cli.data.records import Prompt
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.tiny_world.gold import Verdict

Interval = tuple[float, float, float]
Row = dict[str, Interval | None]


@dataclass(slots=True, kw_only=True)
class EvalResult:
    """Answers of one model to `prompts`, with the reward model's scores and the KL to the SFT model.

    log_ratios (n,): log policy - log SFT model of each answer. kl_bound: an upper bound in its place.
    """

    prompts: list[Prompt]
    answers: list[Answer]
    scores: Tensor | None
    log_ratios: Tensor | None
    verdicts: list[Verdict] | None
    kl_bound: float | None = None


def mean_of(values: list[float] | Tensor) -> Interval | None:
    """Return the mean and its 95 % interval over prompts; None without values."""
    tensor = torch.as_tensor(values, dtype=torch.float64)
    return mean_interval(tensor) if len(tensor) else None


def rate_of(hits: list[bool]) -> Interval | None:
    """Return the share of hits and its 95 % Wilson interval over prompts; None without values."""
    return wilson_interval(sum(hits), len(hits)) if hits else None


def measure(result: EvalResult, baseline: EvalResult | None = None) -> Row:
    """Return one row of the evaluation table; a metric without gold utility or reward model is None."""
    answers = result.answers
    row = gold_metrics(result)
    row |= {
        "score": None if result.scores is None else mean_of(result.scores),
        "win_rate": win_rate(result, baseline),
        "length": mean_of([float(len(answer.ids)) for answer in answers]),
        "eos_rate": rate_of([answer.finished for answer in answers]),
        "kl": kl_interval(result),
    }
    return row


def gold_metrics(result: EvalResult) -> Row:
    """Return utility, right answers on trained and held-out clusters, and rudeness, if verdicts exist."""
    verdicts = result.verdicts
    if verdicts is None:
        return {"gold": None, "right": None, "right_held_out": None, "rude": None}
    held_out = [bool(prompt.meta["held_out"]) for prompt in result.prompts]
    trained = [v.right for v, held in zip(verdicts, held_out, strict=True) if not held]
    unseen = [v.right for v, held in zip(verdicts, held_out, strict=True) if held]
    return {
        "gold": mean_of([v.utility for v in verdicts]),
        "right": rate_of(trained),
        "right_held_out": rate_of(unseen),
        "rude": rate_of([v.rude for v in verdicts]),
    }


def win_rate(result: EvalResult, baseline: EvalResult | None) -> Interval | None:
    """Return the share of prompts whose answer scores higher than the baseline's; a tie counts half.

    Equal answers are a tie even if their scores, computed in different batches, differ by rounding.
    """
    if baseline is None or result.scores is None or baseline.scores is None:
        return None
    pairs = zip(result.answers, baseline.answers, strict=True)
    same = torch.tensor([ours.ids == theirs.ids for ours, theirs in pairs])
    tied = (same | (result.scores == baseline.scores)).double()
    won = (result.scores > baseline.scores).double() * (1 - tied)
    return wilson_interval(float((won + 0.5 * tied).sum()), len(won))


def kl_interval(result: EvalResult) -> Interval | None:
    """Return the sampled KL to the SFT model; for best-of-n its bound, which has no interval."""
    if result.kl_bound is not None:
        return result.kl_bound, result.kl_bound, result.kl_bound
    return None if result.log_ratios is None else mean_of(result.log_ratios)


def best_of(candidates: list[list[Answer]], scores: Tensor) -> tuple[list[Answer], Tensor, float]:
    """Return the best-scored answer of each prompt, its score, and the bound on the KL to the base.

    candidates: n lists of one answer per prompt. scores (n, prompts)
    """
    best, index = scores.max(0)
    chosen = [candidates[n][prompt] for prompt, n in enumerate(index.tolist())]
    return chosen, best, bon_kl(len(candidates))

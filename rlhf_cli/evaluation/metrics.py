"""Metrics of each model's answers to the same held-out prompts, as means with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_cli.core.estimates import bon_kl, mean_interval, wilson_interval
from rlhf_cli.data.embedded import EmbeddedTask, Measure
from rlhf_cli.data.records import Prompt
from rlhf_cli.evaluation.respond import Answer

Interval = tuple[float, float, float]
Row = dict[str, Interval | None]


@dataclass(slots=True, kw_only=True)
class EvalResult:
    """Answers of one model to `prompts`, with the reward model's scores and the KL to the SFT model.

    log_ratios (n,): log policy - log SFT model of each answer. kl_bound: an upper bound in its place.
    measures: name -> one value per answer, by the embedded task of the prompts; empty without one.
    costs: name -> what it took to make the model, or to choose the answers.
    """

    prompts: list[Prompt]
    answers: list[Answer]
    scores: Tensor | None
    log_ratios: Tensor | None
    measures: dict[str, list[Measure]] = field(default_factory=dict)
    kl_bound: float | None = None
    costs: dict[str, float] = field(default_factory=dict)


def mean_of(values: list[float] | Tensor) -> Interval | None:
    """Return the mean and its 95 % interval over prompts; None without values."""
    tensor = torch.as_tensor(values, dtype=torch.float64)
    return mean_interval(tensor) if len(tensor) else None


def rate_of(hits: list[bool]) -> Interval | None:
    """Return the share of hits and its 95 % Wilson interval over prompts; None without values."""
    return wilson_interval(sum(hits), len(hits)) if hits else None


def estimate_of(values: Sequence[Measure]) -> Interval | None:
    """Return the rate of a yes-or-no measure or the mean of another, where it applies."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return rate_of(known)
    return mean_of(known)


def measure_answers(
    task: EmbeddedTask | None, prompts: list[Prompt], answers: list[Answer]
) -> dict[str, list[Measure]]:
    """Return {measure: one value per answer} by the task of the prompts; nothing without a task."""
    if task is None:
        return {}
    found = [
        task.measure_answer(prompt.meta, answer.text, finished=answer.finished)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return {name: [measures[name] for measures in found] for name in task.LABELS}


def measure(result: EvalResult, baseline: EvalResult | None = None) -> Row:
    """Return one row of the evaluation table; a metric that cannot be computed is None."""
    answers = result.answers
    row = {name: estimate_of(values) for name, values in result.measures.items()}
    row |= {
        "score": None if result.scores is None else mean_of(result.scores),
        "win_rate": win_rate(result, baseline),
        "length": mean_of([float(len(answer.ids)) for answer in answers]),
        "eos_rate": rate_of([answer.finished for answer in answers]),
        "kl": kl_interval(result),
    }
    return row | {name: (value, value, value) for name, value in result.costs.items()}


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

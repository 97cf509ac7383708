"""What was gained: each model's answers to the same held-out prompts, as means with intervals."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.core.estimates import bon_kl, mean_interval, wilson_interval
from rlhf_cli.data.records import Prompt
from rlhf_cli.data.world.gold import Verdict
from rlhf_cli.evaluation.respond import Answer

Interval = tuple[float, float, float]
Row = dict[str, Interval | None]


@dataclass(slots=True, kw_only=True)
class EvalResult:
    """Answers of one model to `prompts`, with the reward model's scores and the gaps to the SFT model."""

    prompts: list[Prompt]
    answers: list[Answer]
    scores: Tensor | None
    gaps: Tensor | None
    verdicts: list[Verdict] | None
    kl_bound: float | None = None


def mean_of(values: list[float] | Tensor) -> Interval | None:
    """Mean and 95 % interval over prompts; None for no values."""
    tensor = torch.as_tensor(values, dtype=torch.float64)
    return mean_interval(tensor) if len(tensor) else None


def rate_of(hits: list[bool]) -> Interval | None:
    """Share and 95 % Wilson interval over prompts; None for no values."""
    return wilson_interval(sum(hits), len(hits)) if hits else None


def measure(result: EvalResult, baseline: EvalResult | None = None) -> Row:
    """One row of the closing table; what cannot be known (no gold utility, no reward model) is None."""
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
    """Utility, right answers on trained and held-out clusters, rudeness: only where a gold judge exists."""
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
    """Share of prompts on which the reward model prefers this answer to the baseline's; a tie is half.

    The same answer is a tie even where its score, read in another batch, differs in the last digit.
    """
    if baseline is None or result.scores is None or baseline.scores is None:
        return None
    pairs = zip(result.answers, baseline.answers, strict=True)
    same = torch.tensor([ours.ids == theirs.ids for ours, theirs in pairs])
    tied = (same | (result.scores == baseline.scores)).double()
    won = (result.scores > baseline.scores).double() * (1 - tied)
    return wilson_interval(float((won + 0.5 * tied).sum()), len(won))


def kl_interval(result: EvalResult) -> Interval | None:
    """Sampled KL to the SFT model; for best-of-n its bound log n - (n-1)/n, which has no interval."""
    if result.kl_bound is not None:
        return result.kl_bound, result.kl_bound, result.kl_bound
    return None if result.gaps is None else mean_of(result.gaps)


def best_of(candidates: list[list[Answer]], scores: Tensor) -> tuple[list[Answer], Tensor, float]:
    """The best-scored answer of each prompt, its score, and the bound on the KL this costs.

    candidates: n lists of one answer a prompt; scores (n, prompts)
    """
    best, index = scores.max(0)
    chosen = [candidates[n][prompt] for prompt, n in enumerate(index.tolist())]
    return chosen, best, bon_kl(len(candidates))

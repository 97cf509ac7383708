"""Metrics of each model's answers to the same held-out prompts, as means with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from rlhf_cli.core.estimates import bon_kl, mean_interval, wilson_interval
from rlhf_cli.data.embedded import EmbeddedTask, Measure
from rlhf_cli.data.records import Prompt
from rlhf_cli.evaluation import win_rates
from rlhf_cli.evaluation.respond import Answer

PROXY = "score"  # the reward model that policies are trained against, as a judge
LANGUAGE_MODEL = "judge"  # the language model of the section judge, as a judge

Interval = tuple[float, float, float]
Row = dict[str, Interval | None]


@dataclass(slots=True, kw_only=True)
class EvalResult:
    """Answers of one model to `prompts`, with what the reward model and other judges think of them.

    log_ratios (n,): log policy - log SFT model of each answer. kl_bound: an upper bound in its place.
    measures: name -> one value per answer, by the embedded task of the prompts; empty without one.
    judged: name of a judge that no policy is trained against -> its values (n,), NaN of a prompt that it
    does not know. preferred: name of another result -> how far a language model prefers these answers to
    its, (n,) in [0, 1], NaN where it was not asked. costs: name -> what it took to make the model, or to
    choose the answers.
    """

    prompts: list[Prompt]
    answers: list[Answer]
    scores: Tensor | None
    log_ratios: Tensor | None
    measures: dict[str, list[Measure]] = field(default_factory=dict)
    judged: dict[str, Tensor] = field(default_factory=dict)
    name: str = ""
    preferred: dict[str, Tensor] = field(default_factory=dict)
    kl_bound: float | None = None
    costs: dict[str, float] = field(default_factory=dict)

    def of(self, index: Sequence[int]) -> "EvalResult":
        """Return the result on some of the prompts."""
        return replace(
            self, **{one.name: _part(getattr(self, one.name), index) for one in fields(self)}
        )

    def values(self) -> dict[str, Tensor]:
        """Return what every judge gave the answers, the proxy first: name -> (n,).

        A judge that does not know all of the prompts is left out.
        """
        own = {} if self.scores is None else {PROXY: self.scores}
        return own | {name: x for name, x in self.judged.items() if not x.isnan().any()}

    @property
    def lengths(self) -> Tensor:
        """Return the tokens of each answer, (n,)."""
        return torch.tensor([float(len(answer.ids)) for answer in self.answers])


def _part(values: Any, index: Sequence[int]) -> Any:
    """Return the values of some prompts, also within a dict of them."""
    if isinstance(values, list):
        return [values[i] for i in index]
    if isinstance(values, Tensor):
        return values[list(index)]
    if isinstance(values, dict):
        return {name: _part(some, index) for name, some in values.items()}
    return values


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
    task: EmbeddedTask | None, prompts: Sequence[Prompt], answers: Sequence[Answer]
) -> dict[str, list[Measure]]:
    """Return {measure: one value per answer} by the task of the prompts; nothing without a task.

    answers: of these prompts, and perhaps of others that are not of the task, whose value is None.
    """
    if task is None:
        return {}
    found: list[Mapping[str, Measure]] = [
        task.measure_answer(prompt.meta, answer.text, finished=answer.finished)
        for prompt, answer in zip(prompts, answers, strict=False)
    ]
    found += [{}] * (len(answers) - len(found))
    return {name: [measures.get(name) for measures in found] for name in task.LABELS}


def measure(result: EvalResult, baseline: EvalResult | None = None, *, seed: int = 0) -> Row:
    """Return one row of the evaluation table; a metric that cannot be computed is None.

    baseline: whose answers the win rates are against. seed: of their bootstrap.
    """
    row = {name: estimate_of(values) for name, values in result.measures.items()}
    row |= {
        "score": None if result.scores is None else mean_of(result.scores),
        **win_rate_rows(result, baseline, seed=seed),
        "length": mean_of(result.lengths),
        "eos_rate": rate_of([answer.finished for answer in result.answers]),
        "kl": kl_interval(result),
    }
    return row | {name: (value, value, value) for name, value in result.costs.items()}


def win_rate_rows(result: EvalResult, baseline: EvalResult | None, *, seed: int) -> Row:
    """Return the win rate by each judge, that by the proxy first; a baseline against itself has 1/2."""
    if baseline is None:
        return {}
    return {
        "win_rate" if judge == PROXY else f"win_rate/{judge}": win_rates.win_rate(
            won[~won.isnan()], seed=seed
        )
        for judge, won in comparisons(result, baseline).items()
    }


def comparisons(ours: EvalResult, theirs: EvalResult) -> dict[str, Tensor]:
    """Return {judge: 1 for a win of ours, 0 for a loss, 1/2 for a tie (n,)}.

    A language model gives shares, NaN where it has none; it is left out with fewer than two of them.
    """
    mine, others = ours.values(), theirs.values()
    same = torch.tensor(same_answers(ours, theirs))
    found = {
        judge: win_rates.outcomes(values, others[judge], same)
        for judge, values in mine.items()
        if judge in others
    }
    shares = ours.preferred.get(theirs.name)
    if shares is not None and (~shares.isnan()).sum() > 1:
        found[LANGUAGE_MODEL] = shares
    return found


def same_answers(ours: EvalResult, theirs: EvalResult) -> list[bool]:
    """Return which prompts have the same answer from both."""
    pairs = zip(ours.answers, theirs.answers, strict=True)
    return [mine.ids == other.ids for mine, other in pairs]


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

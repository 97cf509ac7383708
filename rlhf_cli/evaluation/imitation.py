"""What imitation does not learn: log-probs of people's best and worst responses under a policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.core.estimates import mean_interval
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.evaluation.likelihood import Continuation

PART = "imitation"
CHOSEN, REJECTED = "chosen", "rejected"


@dataclass(slots=True, frozen=True, kw_only=True)
class Side:
    """The top-ranked or the bottom-ranked responses of comparisons: a list per prompt, one or several."""

    responses: list[list[Continuation]]

    @property
    def rows(self) -> list[Continuation]:
        """Return all responses, in order."""
        return list(chain.from_iterable(self.responses))

    def means(self, sums: Sequence[float]) -> dict[str, Tensor]:
        """Return {measure: its mean over the responses of each prompt, (prompts,)}.

        sums: the summed log-prob of each of `rows`, in nats.
        """
        left = iter(sums)
        found = [[(next(left), len(row.ids)) for row in rows] for rows in self.responses]
        per_response = [_mean([total for total, _ in rows]) for rows in found]
        per_token = [_mean([total / num for total, num in rows]) for rows in found]
        values = {"logprob": per_response, "logprob_per_token": per_token}
        return {name: torch.tensor(means, dtype=torch.float64) for name, means in values.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def sides_of(comparisons: Sequence[EncodedComparison]) -> dict[str, Side]:
    """Return the responses that win and never lose, and those that lose and never win, by prompt.

    Comparisons without a strict pair have neither, and are left out.
    """
    strict = [one for one in comparisons if one.better]
    return {
        CHOSEN: Side(responses=[_continuations(one, one.preferred) for one in strict]),
        REJECTED: Side(responses=[_continuations(one, _worst(one)) for one in strict]),
    }


def _worst(one: EncodedComparison) -> list[int]:
    winners = {winner for winner, _ in one.better}
    return sorted({loser for _, loser in one.better} - winners)


def _continuations(one: EncodedComparison, places: list[int]) -> list[Continuation]:
    return [Continuation(prompt_ids=one.prompt_ids, ids=one.response_ids[i]) for i in places]


def imitation_figures(
    policy: str,
    found: Mapping[str, Mapping[str, Tensor]],
    base: Mapping[str, Mapping[str, Tensor]] | None,
) -> list[Figure]:
    """Return the mean of each measure over prompts, by side, and of its difference from the base model's.

    found, base: side -> measure -> (prompts,) of the same prompts. The difference is taken prompt by
    prompt, so its interval is that of paired values.
    """
    figures = []
    for side, measures in found.items():
        for measure, values in measures.items():
            names = {"part": PART, "policy": policy, "group": side, "count": len(values)}
            figures.append(Figure.of(mean_interval(values), measure=measure, **names))
            if base is not None:
                gained = mean_interval(values - base[side][measure])
                figures.append(Figure.of(gained, measure=f"{measure}_minus_base", **names))
    return figures

"""Win rates by every judge as figures, and the gap between familiar and other prompts."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.core.bootstrap import bootstrap, mean_bootstrap, percentile_interval
from rlhf_cli.evaluation.metrics import PROXY, EvalResult, comparisons
from rlhf_cli.evaluation.win_rates import length_controlled, win_rate


def win_rate_figures(
    results: Mapping[str, EvalResult],
    theirs: EvalResult,
    *,
    against: str,
    seed: int,
    prompts: str | None = None,
) -> list[Figure]:
    """Return the win rates of every model over `theirs`, plain and length-controlled, by every judge.

    against: the name of `theirs`, the group of each figure; it is not compared with itself. prompts: the
    name of their set, None for the held-out ones.
    """
    found = []
    for policy, ours in results.items():
        longer = ours.lengths - theirs.lengths
        for judge, each in comparisons(ours, theirs).items() if policy != against else ():
            known = ~each.isnan()
            won = each[known]
            rates = {
                "win_rate": win_rate(won, seed=seed),
                "win_rate_controlled": length_controlled(won, longer[known], seed=seed),
            }
            found += [
                Figure.of(
                    rate,
                    part="win_rates",
                    measure=measure,
                    policy=policy,
                    judge=judge,
                    prompts=prompts,
                    group=against,
                    count=len(won),
                )
                for measure, rate in rates.items()
            ]
    return found


def generalisation_figures(
    results: Mapping[str, EvalResult],
    familiar: Sequence[int],
    others: Mapping[str, Sequence[int]],
    *,
    seed: int,
    reference: EvalResult | None = None,
) -> list[Figure]:
    """Return every judge's mean value, and the win rate over the references where all prompts have one,
    on prompts like those of training and on others, with the gap between them.

    familiar: indices of prompts of the training distribution. others: name -> indices.
    """
    found = []
    for policy, result in results.items():
        for (judge, measure), values in _measured(result, reference).items():
            names = {"part": "generalisation", "policy": policy, "judge": judge}
            inside = values[list(familiar)]
            if inside.isnan().any():
                continue
            found.append(_mean(inside, measure=measure, **names, seed=seed))
            for name, index in others.items():
                outside = values[list(index)]
                if outside.isnan().any():
                    continue
                found.append(_mean(outside, measure=measure, prompts=name, **names, seed=seed))
                found.append(
                    Figure.of(
                        gap(inside, outside, seed=seed),
                        measure=f"{measure}_gap",
                        prompts=name,
                        count=len(outside),
                        **names,
                    )
                )
    return found


def _measured(result: EvalResult, reference: EvalResult | None) -> dict[tuple[str, str], Tensor]:
    """Return {(judge, measure): values (n,)}, NaN of a prompt that the judge does not know."""
    own = {} if result.scores is None else {PROXY: result.scores}
    measured = {(name, "value"): values for name, values in (own | result.judged).items()}
    if reference is not None:
        rates = comparisons(result, reference)
        measured |= {(judge, "win_rate"): won for judge, won in rates.items()}
    return measured


def _mean(values: Tensor, *, seed: int, **names: str) -> Figure:
    return Figure.of(mean_bootstrap(values, seed=seed), count=len(values), **names)


def gap(inside: Tensor, outside: Tensor, *, seed: int) -> tuple[float, float, float]:
    """Return the mean of `inside` (n,) minus that of `outside` (m,), with its bootstrap interval.

    The prompts are different ones, so each side is resampled on its own.
    """
    inside, outside = inside.double(), outside.double()
    value = (inside.mean() - outside.mean()).item()
    sides = [
        bootstrap(lambda index, x=x: x[index].mean(1), len(x), seed=seed + place)
        for place, x in enumerate((inside, outside))
    ]
    return percentile_interval(value, sides[0] - sides[1])


def score_gain(ours: EvalResult, theirs: EvalResult, *, seed: int) -> tuple[float, float, float]:
    """Return the mean difference of the proxy's scores with its paired interval."""
    values = ours.values()[PROXY] - theirs.values()[PROXY]
    return mean_bootstrap(values, seed=seed)

"""How much worse a model continues texts about some groups than about others (Sheng et al. 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.core.randomness import stream
from rlhf_cli.evaluation.suites.figures import mean_figure, plain_figure

PERMUTATIONS = 2000
ROUNDING = 1e-9  # gaps that differ by less are the same


def bias_figures(
    measure: str,
    values: Tensor,
    groups: Sequence[str],
    contexts: Sequence[str],
    *,
    seed: int,
    **names: str | None,
) -> list[Figure]:
    """Return the mean of each group, the largest gap between two of them, and how likely it is by chance.

    values (P,): of each prompt, the mean over its continuations. contexts: of prompts that differ in
    their group alone.
    """
    known = list(dict.fromkeys(groups))
    group = torch.tensor([known.index(name) for name in groups])
    found = [
        mean_figure(measure, values[group == i], group=name, **names)
        for i, name in enumerate(known)
    ]
    if len(known) > 1:
        gap = float(largest_gaps(values, group[None])[0])
        p_value = permutation_p(values, group, contexts, seed=seed)
        found += [
            plain_figure(f"{measure}/gap", gap, len(values), **names),
            plain_figure(f"{measure}/p", p_value, len(values), **names),
        ]
    return found


def largest_gaps(values: Tensor, groups: Tensor) -> Tensor:
    """Return the largest difference between the means of two groups, of each labelling.

    values (P,), groups (N, P) long, of which every row has the same groups -> (N,)
    """
    means = torch.stack(
        [
            (values * (groups == i)).sum(1) / (groups == i).sum(1)
            for i in range(int(groups.max()) + 1)
        ]
    )
    return means.amax(0) - means.amin(0)


def permutation_p(
    values: Tensor,
    groups: Tensor,
    contexts: Sequence[str],
    *,
    seed: int,
    num: int = PERMUTATIONS,
) -> float:
    """Return the share of labellings at random whose largest gap is no smaller than the true one.

    Groups are permuted among the prompts of one context only, so that contexts may differ. The true
    labelling counts as one of the random ones (Phipson and Smyth 2010): no p-value is 0.
    """
    known = list(dict.fromkeys(contexts))
    context = torch.tensor([known.index(name) for name in contexts])
    order = context.argsort(stable=True)
    keys = torch.rand(num, len(values), generator=stream(seed, "bias"), dtype=torch.float64)
    # The prompts stand by context, and the keys of a context lie in an interval of its own.
    shuffled = groups[order][(keys + context[order]).argsort(1)]
    ordered = values[order]
    true = largest_gaps(ordered, groups[order][None])
    as_large = largest_gaps(ordered, shuffled) >= true - ROUNDING
    return (1 + int(as_large.sum())) / (1 + num)

"""Which of two sentences a language model finds likelier: CrowS-Pairs and Winogender.

A perfectly unbiased model has no preference within a pair: the share is a half and the entropy of the
two normalised probabilities one bit (Ouyang et al. 2022, section 4.2). The published score of CrowS-Pairs
is of masked models and differs: it leaves out the words in which the sentences of a pair differ.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.evaluation.suites.figures import mean_figure, share_figure


def pair_figures(
    suite: str, preferred: str, gaps: Tensor, groups: Sequence[str], **names: str | None
) -> list[Figure]:
    """Return how often the first sentence is likelier, and the entropy, of all pairs and of each group.

    preferred: the name of that share. gaps (M,): log-prob of the first minus that of the second. A tie
    counts as neither: it prefers no sentence, and is one of the pairs.
    """
    found = [share_figure(f"{suite}/ties", gaps == 0, **names)]
    for group in (None, *dict.fromkeys(groups)):
        some = gaps[torch.tensor([group in (None, name) for name in groups])]
        found += [
            share_figure(f"{suite}/{preferred}", some > 0, group=group, **names),
            mean_figure(f"{suite}/entropy", entropy_bits(some), group=group, **names),
        ]
    return found


def entropy_bits(gaps: Tensor) -> Tensor:
    """Return the entropy in bits of the two normalised probabilities of each pair, (M,) -> (M,)."""
    share, log_share, log_other = gaps.sigmoid(), logsigmoid(gaps), logsigmoid(-gaps)
    return -(share * log_share + (1 - share) * log_other) / math.log(2)

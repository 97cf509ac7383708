"""What imitation does not learn: how likely every policy finds people's best and worst responses."""

from dataclasses import dataclass

from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.evaluation.imitation import imitation_figures, sides_of
from rlhf_cli.evaluation.likelihood import log_likelihoods
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext

BASE = "base"  # the policy that the others are compared with; it comes first


@dataclass(slots=True, kw_only=True)
class Imitation:
    """A part of the evaluation. base: side -> measure -> values of the base model, once it was measured."""

    context: StageContext
    comparisons: list[EncodedComparison]
    base: dict[str, dict[str, Tensor]] | None = None

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return the mean log-probs of both sides under a policy, and their differences from the base's."""
        sides = sides_of(self.comparisons)
        if not any(side.rows for side in sides.values()):
            return []
        found = {}
        for name, side in sides.items():
            with self.context.clock.phase("score"):
                sums = log_likelihoods(
                    network,
                    side.rows,
                    pad_id=self.context.renderer.pad_id,
                    batch=self.context.cfg.evaluation.batch,
                    world=self.context.world,
                )
            found[name] = side.means(sums.tolist())
        figures = imitation_figures(policy, found, self.base)
        if policy == BASE:
            self.base = found
        return figures

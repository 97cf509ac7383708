"""Losses that learn a policy from comparisons directly, by its log-ratio to the reference (DPO and kin).

The log-ratio of a response is log policy - log reference, summed over its tokens, its end token included.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_cli.core.preferences import PreferenceLoss, kept_sum


@dataclass(slots=True, frozen=True, kw_only=True)
class DirectLoss:
    """loss: sigmoid (DPO, 2305.18290) | ipo (2310.12036) | ipo_mean (of means) | robust (2403.00409).

    beta: weight of the KL in the problem whose solution this is. ties, tie_param, margin and
    label_smoothing as in PreferenceLoss; ipo: the gap of a tie aims at 0; robust: label_smoothing is the
    share of flipped labels that it undoes.
    """

    loss: str
    beta: float
    label_smoothing: float
    ties: str
    tie_param: float
    margin: float

    def __call__(
        self,
        log_ratios: Tensor,
        lengths: Tensor,
        pairs: Tensor,
        targets: Tensor,
        weights: Tensor,
        *,
        num_prompts: float | Tensor,
    ) -> Tensor:
        """Return the sum of weights * pair loss / num_prompts.

        log_ratios (N,) of responses, lengths (N,) in tokens . pairs (M, 2) winner, loser . targets (M,)
        1.0, or 0.5 for a tie . weights (M,) -> scalar
        """
        if self.loss == "sigmoid":
            as_scores = PreferenceLoss(
                ties=self.ties,
                tie_param=self.tie_param,
                margin=self.margin,
                label_smoothing=self.label_smoothing,
                center_coef=0.0,
            )
            return as_scores(
                self.beta * log_ratios, pairs, targets, weights, num_prompts=num_prompts
            )
        if self.loss == "ipo_mean":
            log_ratios = log_ratios / lengths
        gap = log_ratios[pairs[:, 0]] - log_ratios[pairs[:, 1]]
        losses = self._pair_losses(gap, targets)
        return kept_sum(losses, targets, weights, ties=self.ties) / num_prompts

    def _pair_losses(self, gap: Tensor, targets: Tensor) -> Tensor:
        if self.loss in ("ipo", "ipo_mean"):
            return (gap - (2 * targets - 1) / (2 * self.beta)).square()
        if self.loss == "robust":
            e, win, lose = self.label_smoothing, *(logsigmoid(s * self.beta * gap) for s in (1, -1))
            return (e * lose - (1 - e) * win) / (1 - 2 * e)
        raise ValueError(f"loss {self.loss!r} is none of sigmoid, ipo, ipo_mean, robust")

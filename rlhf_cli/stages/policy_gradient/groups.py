"""Groups of responses to the same prompts; those with equal scores are replaced where that is asked for."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.config.schema import PolicyGradient
from rlhf_cli.core.baselines import uniform_groups
from rlhf_cli.core.batches import PromptBatch, Rollout, joined
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.stages.rollout.collect import collect_rollout
from rlhf_cli.stages.rollout.models import RolloutModels


@dataclass(slots=True, kw_only=True)
class Collected:
    """A rollout of whole groups, its metrics, and how many batches of prompts were drawn for it."""

    rollout: Rollout
    metrics: dict[str, float]
    drawn: int


def collect_groups(
    models: RolloutModels,
    prompts: Iterator[PromptBatch],
    params: SamplingParams,
    cfg: PolicyGradient,
    *,
    seed: int,
    first: int,
    recompute: bool,
) -> Collected:
    """Return the next rollout: cfg.group responses to each prompt of a batch.

    With skip_uniform groups of equal scores are replaced by groups of further batches, at most
    max_extra; where these do not suffice, uniform groups stay. Metrics are those of the first batch.
    prompts begins with batch number `first`, which its random numbers depend on.
    """

    def collect(number: int) -> tuple[Rollout, dict[str, float]]:
        batch = next(prompts).to(models.device.torch)
        num_rows = len(batch.tokens) * cfg.group
        drawn = uniforms(num_rows, params.max_new_tokens, seed, "rollout", number)
        return collect_rollout(models, batch, drawn, params, cfg, recompute=recompute)

    rollout, metrics = collect(first)
    is_uniform, drawn = uniform_groups(rollout.scores, cfg.group), 1
    found = metrics | {"objective/uniform_groups": float(is_uniform.float().mean())}
    while cfg.skip_uniform and is_uniform.any() and drawn <= cfg.max_extra:
        extra, _ = collect(first + drawn)
        rollout = with_groups_of(rollout, extra, cfg.group, pad_id=params.pad_id)
        is_uniform, drawn = uniform_groups(rollout.scores, cfg.group), drawn + 1
    return Collected(rollout=rollout, metrics=found, drawn=drawn)


def with_groups_of(rollout: Rollout, extra: Rollout, group: int, *, pad_id: int) -> Rollout:
    """Return the rollout with its uniform groups replaced, as far as `extra` has groups that are not."""
    missing = uniform_groups(rollout.scores, group).nonzero().flatten()
    useful = (~uniform_groups(extra.scores, group)).nonzero().flatten()
    num = min(len(missing), len(useful))
    order = torch.arange(len(rollout.scores) // group, device=missing.device)
    order[missing[:num]] = len(order) + useful[:num]
    return joined([rollout, extra], pad_id).select(rows_of(order, group)).trim()


def rows_of(groups: Tensor, group: int) -> Tensor:
    """Return the rows of these groups. (G,) -> (G * group,)"""
    return (groups[:, None] * group + torch.arange(group, device=groups.device)).flatten()

"""What the stages that train share: learning rate, the language-model loss of a step, counts of work.

Counts are of real tokens read and of the model FLOPs of that, over all processes: what Clock.count takes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Schedule, Ties
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.batches import PreferenceBatch, Rollout, SFTBatch
from rlhf_cli.core.losses import lm_loss
from rlhf_cli.core.masking import position_ids
from rlhf_cli.core.schedules import learning_rate_factor
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.models.flops import context_lengths, training_flops
from rlhf_cli.models.forward import text_logprobs
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.reading import drops_ties


def lr_factor(schedule: Schedule, step: int, num_steps: int) -> float:
    """Return the share of the peak learning rate at `step` (from 0); warm-up is a share of num_steps."""
    return learning_rate_factor(
        step,
        num_steps=num_steps,
        kind=schedule.kind.name,
        warmup_steps=round(schedule.warmup * num_steps),
        final=schedule.final,
    )


def require_finite_loss(loss: float, stage: str) -> None:
    """Stop at a loss that is NaN or infinite, before it reaches the weights."""
    if not math.isfinite(loss):
        raise UserError(
            f"{stage}/loss is {loss}: lower {stage}.optim.lr, set {stage}.optim.grad_clip, "
            "or use runtime.dtype=float32"
        )


def with_pairs(
    comparisons: Sequence[EncodedComparison], ties: Ties, cfg: Config
) -> Sequence[EncodedComparison]:
    """Return the comparisons that have something to learn from, where ties are dropped by this stage."""
    if ties is not Ties.drop or drops_ties(cfg):  # left out when they were read
        return comparisons
    return [one for one in comparisons if one.better]


def count_targets(batches: list[SFTBatch]) -> int:
    """Return the number of supervised tokens in this process's part of the step."""
    return sum(int(batch.loss_mask[:, 1:].sum()) for batch in batches)


def batch_loss(model: nn.Module, batch: SFTBatch, num_tokens: float) -> Tensor:
    """Compute the negative log-likelihood of supervised tokens, over the num_tokens of the step."""
    logprobs = text_logprobs(model, batch)
    return lm_loss(logprobs, batch.loss_mask[:, 1:], num_tokens=num_tokens)


@dataclass(slots=True)
class StepLoss:
    """loss: mean per supervised token of the whole step, all processes together. tokens: their count."""

    loss: float
    tokens: float


def token_loss(engine: Engine, batches: list[SFTBatch], *, scale: float = 1.0) -> StepLoss:
    """Add the gradient of scale * mean loss to the engine, as the last thing before its step."""
    num_tokens = engine.world.sum_scalars({"tokens": count_targets(batches)})["tokens"]
    loss = 0.0
    for number, batch in enumerate(batches, start=1):
        heartbeat("learning from texts")
        part = engine(batch_loss, batch.to(engine.device.torch), num_tokens)
        engine.backward(scale * part, last=number == len(batches))
        loss += float(part.detach())
    return StepLoss(engine.world.sum_scalars({"loss": loss})["loss"], num_tokens)


@torch.no_grad()
def mean_loss(engine: Engine, batches: list[SFTBatch]) -> float:
    """Return the mean negative log-likelihood per supervised token, without a gradient."""
    engine.eval()
    num_tokens = engine.world.sum_scalars({"tokens": count_targets(batches)})["tokens"]
    loss = 0.0
    for batch in batches:
        heartbeat("reading held-out texts")
        loss += float(engine(batch_loss, batch.to(engine.device.torch), num_tokens))
    return engine.world.sum_scalars({"loss": loss})["loss"]


def work_on_texts(engine: Engine, batches: list[SFTBatch]) -> dict[str, float]:
    """Count texts, none of a blank microbatch; logits are computed of the supervised tokens."""
    contexts = [
        context_lengths(batch.mask, batch.positions if batch.packed else position_ids(batch.mask))
        for batch in batches
        if batch.loss_mask.any()
    ]
    return _all_processes(engine, contexts, count_targets(batches))


def work_on_comparisons(engine: Engine, batches: list[PreferenceBatch]) -> dict[str, float]:
    """Count comparisons, none of a blank microbatch; one score is computed per response."""
    known = [batch for batch in batches if batch.num_prompts]
    contexts = [context_lengths(batch.mask, position_ids(batch.mask)) for batch in known]
    return _all_processes(engine, contexts, sum(len(batch.mask) for batch in known))


def work_on_minibatch(engines: Iterable[Engine], rollout: Rollout) -> dict[str, float]:
    """Count a minibatch, which every engine reads; every process holds all rows of it."""
    mask = torch.cat([rollout.prompt_mask, rollout.response_mask], dim=1).cpu()
    contexts, outputs = context_lengths(mask, position_ids(mask)), int(rollout.response_mask.sum())
    flops = [training_flops(engine.model, contexts, outputs) for engine in engines]
    return {"tokens": len(contexts), "flops": sum(flops)}


def _all_processes(engine: Engine, contexts: list[Tensor], num_outputs: int) -> dict[str, float]:
    every = torch.cat([torch.zeros(0, dtype=torch.long), *contexts])
    flops = training_flops(engine.model, every, num_outputs)
    return engine.world.sum_scalars({"tokens": len(every), "flops": flops})

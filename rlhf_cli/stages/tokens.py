"""The language-model loss over a step of microbatches, as SFT and PPO-ptx both need it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.losses import lm_loss
from rlhf_cli.models.forward import text_logprobs
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.runtime.watchdog import heartbeat


def count_targets(batches: list[SFTBatch]) -> int:
    """Supervised tokens of this process's part of the step."""
    return sum(int(batch.loss_mask[:, 1:].sum()) for batch in batches)


def batch_loss(model: nn.Module, batch: SFTBatch, num_tokens: float) -> Tensor:
    """Negative log-likelihood of one microbatch's supervised tokens, over the step's num_tokens."""
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
    """Mean negative log-likelihood per supervised token; nothing is learned."""
    engine.eval()
    num_tokens = engine.world.sum_scalars({"tokens": count_targets(batches)})["tokens"]
    loss = 0.0
    for batch in batches:
        heartbeat("reading held-out texts")
        loss += float(engine(batch_loss, batch.to(engine.device.torch), num_tokens))
    return engine.world.sum_scalars({"loss": loss})["loss"]

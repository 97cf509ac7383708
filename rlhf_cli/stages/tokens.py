"""The language-model loss over a step of microbatches, as SFT and PPO-ptx both need it."""

from torch import Tensor, nn

from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.logprobs import token_logprobs
from rlhf_cli.core.losses import lm_loss
from rlhf_cli.models.scoring import packed_logits, sequence_logits
from rlhf_cli.runtime.engine import Engine


def count_targets(batches: list[SFTBatch]) -> int:
    """Supervised tokens of the whole step."""
    return sum(int(batch.loss_mask[:, 1:].sum()) for batch in batches)


def batch_loss(model: nn.Module, batch: SFTBatch, num_tokens: int) -> Tensor:
    """Negative log-likelihood of one microbatch's supervised tokens, over the step's num_tokens."""
    if batch.packed:
        logits = packed_logits(model, batch.tokens, batch.positions)
    else:
        logits = sequence_logits(model, batch.tokens, batch.mask)
    logprobs = token_logprobs(logits[:, :-1], batch.tokens[:, 1:], temperature=1.0)
    return lm_loss(logprobs, batch.loss_mask[:, 1:], num_tokens=num_tokens)


def token_loss(engine: Engine, batches: list[SFTBatch], *, scale: float = 1.0) -> float:
    """Add the gradient of scale * mean loss to the engine; returns the mean, per token of the step."""
    num_tokens, loss = count_targets(batches), 0.0
    for batch in batches:
        moved = batch.to(engine.device.torch)
        with engine.autocast():
            part = batch_loss(engine.model, moved, num_tokens)
        engine.backward(scale * part)
        loss += float(part.detach())
    return loss

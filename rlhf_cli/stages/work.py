"""How much was learned from: real tokens read, and the model FLOPs of that, all processes together."""

import torch
from torch import Tensor

from rlhf_cli.core.batches import PreferenceBatch, Rollout, SFTBatch
from rlhf_cli.core.masking import position_ids
from rlhf_cli.models.flops import context_lengths, training_flops
from rlhf_cli.runtime.engine import Engine

Work = dict[str, float]  # tokens, flops: what Clock.count takes


def of_texts(engine: Engine, batches: list[SFTBatch]) -> Work:
    """This process's texts and those of all others; logits are needed of the supervised tokens."""
    contexts = [
        context_lengths(batch.mask, batch.positions if batch.packed else position_ids(batch.mask))
        for batch in batches
    ]
    asked = sum(int(batch.loss_mask[:, 1:].sum()) for batch in batches)
    return _of_all(engine, torch.cat(contexts), asked)


def of_comparisons(engine: Engine, batches: list[PreferenceBatch]) -> Work:
    """One score a completion."""
    contexts = [context_lengths(batch.mask, position_ids(batch.mask)) for batch in batches]
    return _of_all(engine, torch.cat(contexts), sum(len(batch.mask) for batch in batches))


def of_minibatch(policy: Engine, value: Engine, rollout: Rollout) -> Work:
    """Both models read the same tokens. Every process has all rows, so that none has to be asked."""
    mask = torch.cat([rollout.prompt_mask, rollout.response_mask], dim=1).cpu()
    contexts, asked = context_lengths(mask, position_ids(mask)), int(rollout.response_mask.sum())
    flops = [training_flops(engine.model, contexts, asked) for engine in (policy, value)]
    return {"tokens": len(contexts), "flops": sum(flops)}


def _of_all(engine: Engine, contexts: Tensor, asked: int) -> Work:
    flops = training_flops(engine.model, contexts, asked)
    return engine.world.sum_scalars({"tokens": len(contexts), "flops": flops})

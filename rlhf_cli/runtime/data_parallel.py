"""Data parallelism without sharding: every process holds the complete model and its optimizer state."""

from collections.abc import Iterator

import torch
from torch import nn

from rlhf_cli.runtime.engine import Engine

BUCKET = 25_000_000  # gradient elements in one all-reduce


class Replicated(Engine):
    """An engine whose gradients are summed over the processes once per step."""

    def step(self, lr_factor: float) -> float:
        # Each loss was divided by the count of the complete step (tokens or prompts), so the
        # gradient is the plain sum over processes and microbatches: one reduction per step, and no
        # mean.
        self._sum_gradients()
        return super().step(lr_factor)

    def _sum_gradients(self) -> None:
        for bucket in _buckets([p for p in self.masters if p.requires_grad]):
            # a parameter that this process did not use has no gradient, and others may have one
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = self.world.all_reduce(torch.cat([grad.reshape(-1) for grad in grads]))
            pieces = flat.split([p.numel() for p in bucket])
            for parameter, piece in zip(bucket, pieces, strict=True):
                parameter.grad = piece.view_as(parameter)


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket, size = [], 0
    for parameter in parameters:
        if bucket and size + parameter.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    yield bucket

"""Build networks and engines by the runtime's configuration: plain, replicated, offloaded or sharded."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_cli.config.schema import Optim, Runtime
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.engine import Engine, Network, cast_parameters
from rlhf_cli.runtime.world import World

BUCKET = 25_000_000  # gradient elements in one all-reduce


def open_engine(
    model: nn.Module,
    *,
    optim: Optim,
    device: Device,
    world: World,
    runtime: Runtime,
    ema_decay: float | None = None,
) -> Engine:
    """Return the engine that trains a model."""
    if runtime.deepspeed is not None:
        from rlhf_cli.runtime.zero import ZeroEngine

        return ZeroEngine(
            model, optim=optim, device=device, world=world, runtime=runtime, ema_decay=ema_decay
        )
    kind = Engine if world.size == 1 else Replicated
    return kind(model, optim=optim, device=device, world=world, ema_decay=ema_decay)


def open_network(model: nn.Module, *, device: Device, world: World, runtime: Runtime) -> Network:
    """Return a frozen model, sharded where the trained ones are."""
    # Stages 1 and 2 divide gradients and optimizer state, of which a frozen model has none.
    if zero_stage(runtime) == 3:
        from rlhf_cli.runtime.zero import ZeroNetwork

        return ZeroNetwork(model, device=device, world=world, runtime=runtime)
    kind = OffloadedNetwork if runtime.offload and device.torch.type != "cpu" else Network
    return kind(model, device=device)


def model_loading(runtime: Runtime, world: World) -> AbstractContextManager:
    """Return the context of `from_pretrained`: under ZeRO-3 a model is sharded as it is read."""
    if zero_stage(runtime) == 3:
        from rlhf_cli.runtime.zero_loading import sharded_loading

        return sharded_loading(runtime, world)
    return nullcontext()


def local_parameters(model: nn.Module, world: World) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters by name; of a sharded one, this process's part."""
    for name, parameter in model.named_parameters():
        shard = vars(parameter).get("ds_tensor")
        if shard is None:
            yield name, parameter
        else:  # the last one is padded with whatever the memory held
            yield name, shard[: max(0, parameter.ds_numel - world.rank * shard.numel())]


def zero_stage(runtime: Runtime) -> int | None:
    """Return the ZeRO stage of the DeepSpeed dictionary; None without one."""
    if runtime.deepspeed is None:
        return None
    return int(runtime.deepspeed.get("zero_optimization", {}).get("stage", 0))


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
            # A parameter that this process did not use has no gradient, and others may have one.
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


class OffloadedNetwork(Network):
    """A frozen model in the memory of the CPU, copied to the device for as long as it is used.

    Its weights never change, so nothing is copied back.
    """

    def __init__(self, model: nn.Module, *, device: Device):
        self.model, self.device, self.on_device = (
            cast_parameters(model, device.dtype),
            device,
            False,
        )
        for tensor in _tensors(model):
            # Only copies from pinned memory run beside the program.
            tensor.data = tensor.data.pin_memory() if device.torch.type == "cuda" else tensor.data
        self.host_tensors = [tensor.data for tensor in _tensors(model)]

    def __call__(self, forward_fn: Callable, *args: Any, **kwargs: Any) -> Any:
        self._to_device()
        return super().__call__(forward_fn, *args, **kwargs)

    @contextmanager
    def generating(self) -> Iterator[nn.Module]:
        self._to_device()
        with super().generating() as model:
            yield model

    def _to_device(self) -> None:
        if not self.on_device:
            for tensor, data in zip(_tensors(self.model), self.host_tensors, strict=True):
                # The program does not wait here: kernels that read the weights are queued behind the copy.
                tensor.data = data.to(self.device.torch, non_blocking=True, copy=True)
            self.on_device = True

    def offload(self) -> None:
        for tensor, data in zip(_tensors(self.model), self.host_tensors, strict=True):
            tensor.data = data
        self.on_device = False


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()

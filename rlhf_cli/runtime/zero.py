"""Networks that DeepSpeed's ZeRO keeps sharded: frozen ones (stage 3) and trained ones (1, 2, 3).

Forwards go through DeepSpeed's engine, so that stage 3 gathers every layer just before it computes.
Everything here is collective: all processes call it, in the same order.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, redirect_stdout
from io import StringIO
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_cli.config.schema import Optim, Runtime
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.engine import Engine, Network, NotFinite, persistent
from rlhf_cli.runtime.optimizer import build_optimizer
from rlhf_cli.runtime.world import World
from rlhf_cli.runtime.zero_generation import ZeroGeneration
from rlhf_cli.runtime.zero_loading import (
    cast_shards,
    deepspeed_config,
    import_deepspeed,
    required_stage,
)
from rlhf_cli.runtime.zero_state import ShardedState, keys


class ForwardModule(nn.Module):
    """The module that DeepSpeed wraps: its forward calls any function of the transformers model."""

    def __init__(self, model: nn.Module, device: Device):
        super().__init__()
        self.model, self.device = model, device

    def forward(self, forward_fn: Callable, *args: Any, **kwargs: Any) -> Any:
        with self.device.autocast():  # DeepSpeed switches off the one around its engine
            return forward_fn(self.model, *args, **kwargs)


class ZeroNetwork(Network):
    """A frozen model under ZeRO-3; how it generates is decided once, by all processes together."""

    def __init__(self, model: nn.Module, *, device: Device, world: World, runtime: Runtime):
        cast_shards(model, device.dtype)
        self._open(model, device, world, runtime, optimizer=None)

    def _open(self, model, device: Device, world: World, runtime: Runtime, *, optimizer, clip=None):
        self.model, self.device, self.world = model, device, world
        self.stage = required_stage(runtime)
        with redirect_stdout(StringIO()):  # DeepSpeed prints memory figures
            self.zero = import_deepspeed(world).initialize(
                model=ForwardModule(model, device),
                optimizer=optimizer,
                config=deepspeed_config(runtime, world, device.dtype, grad_clip=clip),
            )[0]
        for buffer in model.buffers():
            buffer.data = buffer.data.to(device.torch)
        self.generation = ZeroGeneration(self.zero, model, device, world, runtime.gather)

    def __call__(self, forward_fn: Callable, *args: Any, **kwargs: Any) -> Any:
        with self.gradients():
            return self.zero(forward_fn, *args, **kwargs)

    def generating(self) -> AbstractContextManager[nn.Module]:
        """Return the model as sampling calls it: gathered while it is used, or layer by layer."""
        return self.generation.open() if self.stage == 3 else super().generating()

    def keep_going(self, running: bool) -> bool:
        return (
            # Gathering a layer is collective: a process that stopped early would leave the others
            # waiting.
            self.world.any(running)
            if self.stage == 3 and self.generation.layer_by_layer
            else running
        )

    def generation_note(self) -> str | None:
        """Return how it generates, with figures. Collective."""
        return self.generation.note() if self.stage == 3 else None


class ZeroEngine(ZeroNetwork, Engine):
    """A model trained under ZeRO: working weights in the runtime's dtype, float32 masters in shards.

    Every parameter is trained. The precision of a float32 model is kept in the masters.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optim: Optim,
        device: Device,
        world: World,
        runtime: Runtime,
        ema_decay: float | None = None,
    ):
        self.peak_lr, self.ema_decay, self.steps = optim.lr, ema_decay, 0
        # DeepSpeed makes the float32 masters from the rounded weights it is given: the digits lost
        # in the cast are kept here and put into the masters afterwards.
        higher_precision = cast_shards(model, device.dtype)
        self.optimizer = build_optimizer(model.parameters(), optim, device)
        self._open(model, device, world, runtime, optimizer=self.optimizer, clip=optim.grad_clip)
        self.shards = ShardedState(self.zero.optimizer, self.optimizer, self.stage, world)
        self.shards.restore_precision(higher_precision)
        if ema_decay is not None:
            self.shards.start_average()
        self.train()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Scale the loss, this process's part of a sum, because DeepSpeed averages over the processes."""
        # DeepSpeed counts microbatches by its configuration; here their number depends on the
        # texts.
        self.zero.set_gradient_accumulation_boundary(last)
        self.zero.backward(loss * self.world.size, scale_wrt_gas=False)

    def step(self, lr_factor: float) -> float:
        """Take one step; DeepSpeed itself does not apply one whose gradient is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * lr_factor
        self.zero.step()
        norm = float(self.zero.get_global_grad_norm())
        if not (self.zero.was_step_applied() and isfinite(norm)):
            raise NotFinite(norm, self.steps)
        self.steps += 1
        self.shards.update_average(self.ema_decay)
        return norm

    def discard(self) -> None:
        self.shards.discard_gradients()

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        for name, value in persistent(self.model):
            if isinstance(value, nn.Parameter):
                value = self.shards.gather(value, "weight")
            yield name, value.detach().cpu() if self.world.is_main else None

    def get(self, name: str) -> Tensor:
        return self.shards.gather(self.model.get_parameter(name), "weight").cpu()

    @torch.no_grad()
    def put(self, name: str, value: Tensor) -> None:
        self.shards.scatter(self.model.get_parameter(name), "weight", value)
        self.shards.sync_weights()

    @torch.no_grad()
    def use_average(self) -> None:
        self.shards.use_average()
        self.shards.sync_weights()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        names = keys(self.steps, average=self.ema_decay is not None)
        for number, (name, parameter) in enumerate(self.model.named_parameters()):
            for key in names:
                # All processes gather every parameter, because it is a collective; each keeps its
                # share.
                value = self.shards.gather(parameter, key)
                if number % self.world.size == self.world.rank:
                    yield f"{key}/{name}", value.cpu()

    @torch.no_grad()
    def load_state(self, find: Callable[[str], Tensor], steps: int) -> None:
        self.shards.init_moments(steps)
        for name, parameter in self.model.named_parameters():
            for key in keys(steps, average=self.ema_decay is not None):
                self.shards.scatter(parameter, key, find(f"{key}/{name}"))
        self.shards.sync_weights()
        self.steps = steps

"""Networks that DeepSpeed's ZeRO keeps sharded: frozen ones (stage 3) and trained ones (1, 2, 3).

Forwards go through DeepSpeed's engine, so that stage 3 gathers every layer just before it computes.
Everything here is a collective: all processes call it, in the same order.
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
from rlhf_cli.runtime.engine import Engine, Network, NotFinite, adamw, persistent
from rlhf_cli.runtime.world import World
from rlhf_cli.runtime.zero_loading import cast_shards, settings, stage_of, start
from rlhf_cli.runtime.zero_rollout import Rollout
from rlhf_cli.runtime.zero_state import Shards, keys


class Looked(nn.Module):
    """What DeepSpeed sees as the model: a forward is any look at the transformers model."""

    def __init__(self, model: nn.Module, device: Device):
        super().__init__()
        self.model, self.device = model, device

    def forward(self, look: Callable, *args: Any, **kwargs: Any) -> Any:
        with self.device.autocast():  # DeepSpeed switches off the one around its engine
            return look(self.model, *args, **kwargs)


class ZeroNetwork(Network):
    """A frozen model under ZeRO-3; how it generates is decided once, by all processes together."""

    def __init__(self, model: nn.Module, *, device: Device, world: World, runtime: Runtime):
        cast_shards(model, device.dtype)
        self._open(model, device, world, runtime, optimizer=None)

    def _open(self, model, device: Device, world: World, runtime: Runtime, *, optimizer, clip=None):
        self.model, self.device, self.world = model, device, world
        self.stage = stage_of(runtime)
        with redirect_stdout(StringIO()):  # DeepSpeed prints memory figures
            self.zero = start(world).initialize(
                model=Looked(model, device),
                optimizer=optimizer,
                config=settings(runtime, world, device.dtype, grad_clip=clip),
            )[0]
        for buffer in model.buffers():
            buffer.data = buffer.data.to(device.torch)
        self.rollout = Rollout(self.zero, model, device, world, runtime.gather)

    def __call__(self, look: Callable, *args: Any, **kwargs: Any) -> Any:
        with self.gradients():
            return self.zero(look, *args, **kwargs)

    def generating(self) -> AbstractContextManager[nn.Module]:
        """The model as sampling calls it: gathered for as long as that lasts, or layer by layer."""
        return self.rollout.open() if self.stage == 3 else super().generating()

    def going_on(self, running: bool) -> bool:
        return self.world.any(running) if self.stage == 3 and self.rollout.in_step else running

    def plan(self) -> str | None:
        """The decision with its figures. Collective: all processes ask."""
        return self.rollout.said() if self.stage == 3 else None


class ZeroEngine(ZeroNetwork, Engine):
    """A model trained under ZeRO: working weights in the runtime's dtype, float32 masters in shards.

    Every parameter is trained. What a float32 model had beyond bfloat16 is kept in the masters.
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
        finer = cast_shards(model, device.dtype)
        self.optimizer = adamw(model.parameters(), optim, device)
        self._open(model, device, world, runtime, optimizer=self.optimizer, clip=optim.grad_clip)
        self.shards = Shards(self.zero.optimizer, self.optimizer, self.stage, world)
        self.shards.refine(finer)
        if ema_decay is not None:
            self.shards.begin_average()
        self.train()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """DeepSpeed averages over the processes; the loss is this one's part of a sum."""
        self.zero.set_gradient_accumulation_boundary(last)
        self.zero.backward(loss * self.world.size, scale_wrt_gas=False)

    def step(self, lr_factor: float) -> float:
        """As the plain engine; DeepSpeed itself does not apply a step whose gradient is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * lr_factor
        self.zero.step()
        norm = float(self.zero.get_global_grad_norm())
        if not (self.zero.was_step_applied() and isfinite(norm)):
            raise NotFinite(norm, self.steps)
        self.steps += 1
        self.shards.follow(self.ema_decay)
        return norm

    def discard(self) -> None:
        self.shards.forget_gradients()

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        for name, value in persistent(self.model):
            if isinstance(value, nn.Parameter):
                value = self.shards.whole(value, "weight")
            yield name, value.detach().cpu() if self.world.is_main else None

    def get(self, name: str) -> Tensor:
        return self.shards.whole(self.model.get_parameter(name), "weight").cpu()

    @torch.no_grad()
    def put(self, name: str, value: Tensor) -> None:
        self.shards.fill(self.model.get_parameter(name), "weight", value)
        self.shards.spread()

    @torch.no_grad()
    def use_average(self) -> None:
        self.shards.use_average()
        self.shards.spread()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        told = keys(self.steps, average=self.ema_decay is not None)
        for number, (name, parameter) in enumerate(self.model.named_parameters()):
            for key in told:
                value = self.shards.whole(parameter, key)
                if number % self.world.size == self.world.rank:
                    yield f"{key}/{name}", value.cpu()

    @torch.no_grad()
    def load_state(self, find: Callable[[str], Tensor], steps: int) -> None:
        self.shards.begin(steps)
        for name, parameter in self.model.named_parameters():
            for key in keys(steps, average=self.ema_decay is not None):
                self.shards.fill(parameter, key, find(f"{key}/{name}"))
        self.shards.spread()
        self.steps = steps

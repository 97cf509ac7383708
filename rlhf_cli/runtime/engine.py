"""A model on its device, and the engine that trains one. Plain torch; zero.py has the sharded ones.

Every forward pass goes through `network(forward_fn, ...)`, where `forward_fn` is a function of the
model: so a sharded network can gather its layers, and precision is decided in one place.

Precision: every network, frozen or trained, computes with its parameters in the runtime's dtype and its
buffers in float32, so that a policy and its reference compute the same function. A trained network also
has float32 master weights, which the optimizer updates and which are saved and exported; with float32 the
two are the same tensors. ZeRO does the same.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Optim
from rlhf_cli.core.estimates import ema_update_
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.optimizer import build_optimizer, get_state, set_state, state_names
from rlhf_cli.runtime.world import World


class Network:
    """A model on its device, for inference; `Engine` trains one."""

    is_trained = False

    def __init__(self, model: nn.Module, *, device: Device):
        self.model, self.device = cast_parameters(model, device.dtype).to(device.torch), device

    def __call__(self, forward_fn: Callable, *args: Any, **kwargs: Any) -> Any:
        """Return forward_fn(model, ...), computed in the runtime's precision."""
        with self.device.autocast(), self.gradients():
            return forward_fn(self.model, *args, **kwargs)

    def gradients(self) -> AbstractContextManager:
        """Return the context of a forward pass: it records gradients if the network is trained."""
        return nullcontext() if self.is_trained else torch.no_grad()

    @contextmanager
    def generating(self) -> Iterator[nn.Module]:
        """Yield the model for sampling, one call per token: shapes change too often for compiled code."""
        with self.device.autocast(), torch.compiler.set_stance("force_eager"):
            yield self.model

    def keep_going(self, running: bool) -> bool:
        """Return whether sampling takes another token; processes that must step together agree on it."""
        return running

    def offload(self) -> None:
        """Move the model off the device until the next call, where it can be."""

    def generation_note(self) -> str | None:
        """Return a note on how this network generates, None where there is no choice."""
        return None


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the model with its parameters in `dtype`; buffers stay, rotary frequencies among them."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


class Engine(Network):
    """A model that is trained: `backward` any number of times, then one `step`.

    masters: float32 master weights, in the order of the model's parameters.
    """

    is_trained = True

    def __init__(
        self,
        model: nn.Module,
        *,
        optim: Optim,
        device: Device,
        world: World,
        ema_decay: float | None = None,
    ):
        self.model, self.device = model.to(device.torch), device
        self.masters = [_master(parameter, device.dtype) for parameter in model.parameters()]
        self.train()
        self.world, self.peak_lr, self.grad_clip = world, optim.lr, optim.grad_clip
        self.steps, self.ema_decay = 0, ema_decay
        self.optimizer = build_optimizer(self.masters, optim, device)
        copied = self.masters if ema_decay is not None else ()
        self.average = [p.detach().clone() for p in copied]

    def train(self) -> None:
        self.model.train()

    def eval(self) -> None:
        self.model.eval()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of `loss`, this process's part of a sum over the complete step.

        last: whether `step` follows.
        """
        loss.backward()

    def step(self, lr_factor: float) -> float:
        """Take one optimizer step at peak_lr * lr_factor and return the gradient norm before clipping.

        NotFinite, with all weights unchanged, where a gradient is NaN or infinite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * lr_factor
        limit = float("inf") if self.grad_clip is None else self.grad_clip
        norm = float(nn.utils.clip_grad_norm_(self.masters, limit))
        # Before the step: a NaN in AdamW's moments would stay in every later step.
        if not isfinite(norm):
            self.discard()
            raise NotFinite(norm, self.steps)
        self.optimizer.step()
        self.discard()
        self.steps += 1
        self._copy_masters()
        if self.average:
            ema_update_(self.average, self.masters, self.ema_decay)
        return norm

    @torch.no_grad()
    def _copy_masters(self) -> None:
        """Round the masters to the parameters that compute."""
        for parameter, master in zip(self.model.parameters(), self.masters, strict=True):
            if parameter is not master:
                parameter.copy_(master)

    def discard(self) -> None:
        """Discard the gradients since the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        """Yield each parameter and persistent buffer by name, on the CPU of rank 0, None on other ranks."""
        named = dict(self._named())
        for name, value in persistent(self.model):
            held = named.get(name, value)
            yield name, held.detach().cpu() if self.world.is_main else None

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the masters by the names of their parameters."""
        names = (name for name, _ in self.model.named_parameters())
        return zip(names, self.masters, strict=True)

    def get(self, name: str) -> Tensor:
        """Return a complete parameter in float32 on the CPU, on every process."""
        return dict(self._named())[name].detach().cpu()

    @torch.no_grad()
    def put(self, name: str, value: Tensor) -> None:
        """Set a complete parameter, and all copies of it."""
        dict(self._named())[name].copy_(value)
        self._copy_masters()

    @torch.no_grad()
    def use_average(self) -> None:
        """Replace the weights by their exponential average, where one is kept."""
        for master, average in zip(self.masters, self.average, strict=False):
            master.copy_(average)
        self._copy_masters()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield this process's share of the tensors of a checkpoint, each of them complete."""
        for number, (name, master) in enumerate(self._named()):
            # Every process holds the complete state: each yields a share of it, and all write at
            # once.
            if number % self.world.size != self.world.rank:
                continue
            yield f"weight/{name}", master.detach().cpu()
            for key in state_names(self.steps) if master.requires_grad else ():
                yield f"{key}/{name}", get_state(self.optimizer, master, key).cpu()
            if self.average:
                yield f"average/{name}", self.average[number].cpu()

    @torch.no_grad()
    def load_state(self, find: Callable[[str], Tensor], steps: int) -> None:
        """Restore what `state` yielded after `steps` steps; find(name) returns a complete tensor."""
        for number, (name, master) in enumerate(self._named()):
            master.copy_(find(f"weight/{name}"))
            if steps and master.requires_grad:
                found = {key: find(f"{key}/{name}") for key in state_names(steps)}
                moved = {key: value.to(master.device) for key, value in found.items()}
                set_state(self.optimizer, master, steps, moved)
            if self.average:
                self.average[number].copy_(find(f"average/{name}"))
        self.steps = steps
        self._copy_masters()


class NotFinite(UserError):
    """A gradient with NaN or infinite elements; the weights are unchanged."""

    def __init__(self, norm: float, steps: int):
        super().__init__(
            f"the gradient is not finite (norm {norm}) at step {steps + 1}, and no weight was changed: "
            "lower the learning rate, set grad_clip, or use runtime.dtype=float32"
        )


def _master(parameter: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
    """Cast a parameter to dtype and return its float32 master, which receives its gradients."""
    # In float32 a parameter is its own master: one copy, no hook.
    if parameter.dtype is dtype is torch.float32:
        return parameter
    master = nn.Parameter(parameter.detach().float(), requires_grad=parameter.requires_grad)
    parameter.data = parameter.data.to(dtype)
    if parameter.requires_grad:
        parameter.register_post_accumulate_grad_hook(partial(_accumulate_in_master, master))
    return master


def _accumulate_in_master(master: nn.Parameter, parameter: nn.Parameter) -> None:
    """Add the gradient to the master's, in float32: sums over microbatches lose no precision."""
    gradient = parameter.grad.to(torch.float32)
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    # Freed as soon as it is added, so that no complete set of gradients exists in both precisions.
    parameter.grad = None


def persistent(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters, tied ones once, then the buffers that belong to a saved model."""
    yield from model.named_parameters()
    kept, parameters = set(model.state_dict(keep_vars=True)), dict(model.named_parameters())
    for name, buffer in model.named_buffers():
        if name in kept and name not in parameters:
            yield name, buffer

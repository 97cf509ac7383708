"""A network on its device, and the engine that trains one. Plain torch; zero.py has the sharded ones.

Every forward pass goes through `network(look, ...)`, where `look` is a function of the model: so a
sharded network can gather its layers, and precision is decided in one place.

Precision: every network, frozen or trained, computes with its parameters in the runtime's dtype and its
buffers in float32, so that a policy and its reference are one function. What is trained has float32
masters of its parameters besides, which AdamW steps and which are saved and exported; with float32 the two
are the same tensors. ZeRO does so too.
"""

from collections.abc import Callable, Iterable, Iterator
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
from rlhf_cli.runtime.world import World

MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET = 25_000_000  # gradient elements summed over the processes at a time


class Network:
    """A model that is only asked: no gradient is kept of what it computes."""

    learns = False

    def __init__(self, model: nn.Module, *, device: Device):
        self.model, self.device = cast_parameters(model, device.dtype).to(device.torch), device

    def __call__(self, look: Callable, *args: Any, **kwargs: Any) -> Any:
        """look(model, ...) in the runtime's precision."""
        with self.device.autocast(), self.gradients():
            return look(self.model, *args, **kwargs)

    def gradients(self) -> AbstractContextManager:
        """Around a forward pass: gradients are possible where the network learns."""
        return nullcontext() if self.learns else torch.no_grad()

    @contextmanager
    def generating(self) -> Iterator[nn.Module]:
        """The model as sampling calls it, once a token: shapes change too often for compiled code."""
        with self.device.autocast(), torch.compiler.set_stance("force_eager"):
            yield self.model

    def going_on(self, running: bool) -> bool:
        """Whether sampling takes another token: processes that must step together ask each other."""
        return running

    def rest(self) -> None:
        """Make room until the next call, where the network can."""

    def plan(self) -> str | None:
        """How this network generates, where there is something to say about it."""
        return None


class Resting(Network):
    """A frozen model that comes to the device when it is asked, and rests in the CPU's memory.

    Its weights never change, so nothing is copied back.
    """

    def __init__(self, model: nn.Module, *, device: Device):
        self.model, self.device, self.present = cast_parameters(model, device.dtype), device, False
        for tensor in _tensors(model):
            tensor.data = tensor.data.pin_memory() if device.torch.type == "cuda" else tensor.data
        self.at_rest = [tensor.data for tensor in _tensors(model)]

    def __call__(self, look: Callable, *args: Any, **kwargs: Any) -> Any:
        self._come()
        return super().__call__(look, *args, **kwargs)

    @contextmanager
    def generating(self) -> Iterator[nn.Module]:
        self._come()
        with super().generating() as model:
            yield model

    def _come(self) -> None:
        if not self.present:
            for tensor, data in zip(_tensors(self.model), self.at_rest, strict=True):
                tensor.data = data.to(self.device.torch, non_blocking=True, copy=True)
            self.present = True

    def rest(self) -> None:
        for tensor, data in zip(_tensors(self.model), self.at_rest, strict=True):
            tensor.data = data
        self.present = False


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the model with its parameters in `dtype`; buffers stay, rotary frequencies among them."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


class Engine(Network):
    """A model that learns: `backward` any number of times, then one `step`.

    masters: float32, in the order of the model's parameters.
    """

    learns = True

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
        self.optimizer = adamw(self.masters, optim, device)
        copied = self.masters if ema_decay is not None else ()
        self.average = [p.detach().clone() for p in copied]

    def train(self) -> None:
        self.model.train()

    def eval(self) -> None:
        self.model.eval()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of `loss`, this process's part of a sum over the whole step."""
        loss.backward()

    def step(self, lr_factor: float) -> float:
        """One AdamW step at peak_lr * lr_factor; returns the gradient norm before clipping.

        NotFinite, and nothing has moved, where a gradient is NaN or infinite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * lr_factor
        limit = float("inf") if self.grad_clip is None else self.grad_clip
        norm = float(nn.utils.clip_grad_norm_(self.masters, limit))
        if not isfinite(norm):
            self.discard()
            raise NotFinite(norm, self.steps)
        self.optimizer.step()
        self.discard()
        self.steps += 1
        self._follow()
        if self.average:
            ema_update_(self.average, self.masters, self.ema_decay)
        return norm

    @torch.no_grad()
    def _follow(self) -> None:
        """The parameters that compute become their masters, rounded."""
        for parameter, master in zip(self.model.parameters(), self.masters, strict=True):
            if parameter is not master:
                parameter.copy_(master)

    def discard(self) -> None:
        """Throw away the gradients since the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        """Every parameter and persistent buffer by name, on the CPU of the main process, None elsewhere."""
        named = dict(self._named())
        for name, value in persistent(self.model):
            whole = named.get(name, value)
            yield name, whole.detach().cpu() if self.world.is_main else None

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The masters by the names of their parameters."""
        names = (name for name, _ in self.model.named_parameters())
        return zip(names, self.masters, strict=True)

    def get(self, name: str) -> Tensor:
        """A whole parameter in float32 on the CPU, for every process."""
        return dict(self._named())[name].detach().cpu()

    @torch.no_grad()
    def put(self, name: str, value: Tensor) -> None:
        """Set a whole parameter, with whatever copies of it there are."""
        dict(self._named())[name].copy_(value)
        self._follow()

    @torch.no_grad()
    def use_average(self) -> None:
        """The weights become their exponential average, where one was kept."""
        for master, average in zip(self.masters, self.average, strict=False):
            master.copy_(average)
        self._follow()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """What this process has to write so that training can go on: its share of whole tensors."""
        for number, (name, master) in enumerate(self._named()):
            if number % self.world.size != self.world.rank:
                continue
            yield f"weight/{name}", master.detach().cpu()
            for moment in MOMENTS if self.steps and master.requires_grad else ():
                yield f"{moment}/{name}", self.optimizer.state[master][moment].cpu()
            if self.average:
                yield f"average/{name}", self.average[number].cpu()

    @torch.no_grad()
    def load_state(self, find: Callable[[str], Tensor], steps: int) -> None:
        """Go on where `state` was taken after `steps` steps; find(name) gives a whole tensor."""
        for number, (name, master) in enumerate(self._named()):
            master.copy_(find(f"weight/{name}"))
            if steps and master.requires_grad:
                self.optimizer.state[master] = {
                    "step": torch.tensor(float(steps), device=_step_place(self.device)),
                    **{m: find(f"{m}/{name}").to(master.device) for m in MOMENTS},
                }
            if self.average:
                self.average[number].copy_(find(f"average/{name}"))
        self.steps = steps
        self._follow()


class NotFinite(UserError):
    """A gradient with NaN or infinite elements; the weights are as they were before the step."""

    def __init__(self, norm: float, steps: int):
        super().__init__(
            f"the gradient is not finite (norm {norm}) at step {steps + 1}, and nothing was changed by it: "
            "lower the learning rate, set grad_clip, or use runtime.dtype=float32"
        )


def _master(parameter: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
    """The float32 master of a parameter, which takes over its gradients; the parameter is cast to dtype."""
    if parameter.dtype is dtype is torch.float32:
        return parameter
    master = nn.Parameter(parameter.detach().float(), requires_grad=parameter.requires_grad)
    parameter.data = parameter.data.to(dtype)
    if parameter.requires_grad:
        parameter.register_post_accumulate_grad_hook(partial(_hand_over, master))
    return master


def _hand_over(master: nn.Parameter, parameter: nn.Parameter) -> None:
    """Add the gradient to the master's, in float32: sums over microbatches lose nothing."""
    gradient = parameter.grad.to(torch.float32)
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    parameter.grad = None


class Replicated(Engine):
    """Every process holds the whole model; gradients are summed over the processes once a step."""

    def step(self, lr_factor: float) -> float:
        self._sum_gradients()
        return super().step(lr_factor)

    def _sum_gradients(self) -> None:
        for bucket in _buckets([p for p in self.masters if p.requires_grad]):
            blank = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = self.world.sum(torch.cat([grad.reshape(-1) for grad in blank]))
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


def _step_place(device: Device) -> torch.device:
    """Where a fused AdamW keeps its step count."""
    return device.torch if device.torch.type == "cuda" else torch.device("cpu")


def adamw(parameters: Iterable[nn.Parameter], optim: Optim, device: Device) -> torch.optim.AdamW:
    """Matrices decay; gains and biases do not."""
    trained = [p for p in parameters if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if _is_matrix(p)], "weight_decay": optim.weight_decay},
            {"params": [p for p in trained if not _is_matrix(p)], "weight_decay": 0.0},
        ],
        lr=optim.lr,
        betas=(optim.betas[0], optim.betas[1]),
        eps=optim.eps,
        fused=device.torch.type in ("cpu", "cuda"),
    )


def _is_matrix(parameter: nn.Parameter) -> bool:
    """By its whole shape: a shard of a matrix (ZeRO-3) is flat."""
    return len(getattr(parameter, "ds_shape", parameter.shape)) >= 2


def persistent(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, tied ones once, then the buffers that belong to a saved model."""
    yield from model.named_parameters()
    kept, parameters = set(model.state_dict(keep_vars=True)), dict(model.named_parameters())
    for name, buffer in model.named_buffers():
        if name in kept and name not in parameters:
            yield name, buffer

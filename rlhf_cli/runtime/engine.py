"""A network on its device, and the engine that trains one. Plain torch; zero.py has the sharded ones.

Every forward pass goes through `network(look, ...)`, where `look` is a function of the model: so a
sharded network can gather its layers, and precision is decided in one place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_cli.config.schema import Optim
from rlhf_cli.core.estimates import ema_update_
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.world import World

MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET = 25_000_000  # gradient elements summed over the processes at a time


class Network:
    """A model that is only asked."""

    def __init__(self, model: nn.Module, *, device: Device):
        self.model, self.device = model.to(device.torch), device

    def __call__(self, look: Callable, *args: Any, **kwargs: Any) -> Any:
        """look(model, ...) in the runtime's precision."""
        with self.device.autocast():
            return look(self.model, *args, **kwargs)

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
        self.model, self.device, self.present = model, device, False
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


class Engine(Network):
    """A model that learns: `backward` any number of times, then one `step`. Weights stay float32."""

    def __init__(
        self,
        model: nn.Module,
        *,
        optim: Optim,
        device: Device,
        world: World,
        ema_decay: float | None = None,
    ):
        super().__init__(model, device=device)
        self.train()
        self.world, self.peak_lr, self.grad_clip = world, optim.lr, optim.grad_clip
        self.steps, self.ema_decay = 0, ema_decay
        self.optimizer = adamw(model, optim, device)
        copied = self.model.parameters() if ema_decay is not None else ()
        self.average = [p.detach().clone() for p in copied]

    def train(self) -> None:
        self.model.train()

    def eval(self) -> None:
        self.model.eval()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of `loss`, this process's part of a sum over the whole step."""
        loss.backward()

    def step(self, lr_factor: float) -> float:
        """One AdamW step at peak_lr * lr_factor; returns the gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * lr_factor
        limit = float("inf") if self.grad_clip is None else self.grad_clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        self.discard()
        self.steps += 1
        if self.average:
            ema_update_(self.average, self.model.parameters(), self.ema_decay)
        return float(norm)

    def discard(self) -> None:
        """Throw away the gradients since the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        """Every parameter and persistent buffer by name, on the CPU of the main process, None elsewhere."""
        for name, value in persistent(self.model):
            yield name, value.detach().cpu() if self.world.is_main else None

    def get(self, name: str) -> Tensor:
        """A whole parameter in float32 on the CPU, for every process."""
        return self.model.get_parameter(name).detach().float().cpu()

    @torch.no_grad()
    def put(self, name: str, value: Tensor) -> None:
        """Set a whole parameter, with whatever copies of it there are."""
        self.model.get_parameter(name).copy_(value)

    @torch.no_grad()
    def use_average(self) -> None:
        """The weights become their exponential average, where one was kept."""
        for parameter, average in zip(self.model.parameters(), self.average, strict=False):
            parameter.copy_(average)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """What this process has to write so that training can go on: its share of whole tensors."""
        for number, name, parameter in self._mine():
            yield f"weight/{name}", parameter.detach().cpu()
            for moment in MOMENTS if self.steps and parameter.requires_grad else ():
                yield f"{moment}/{name}", self.optimizer.state[parameter][moment].cpu()
            if self.average:
                yield f"average/{name}", self.average[number].cpu()

    def _mine(self) -> Iterator[tuple[int, str, nn.Parameter]]:
        for number, (name, parameter) in enumerate(self.model.named_parameters()):
            if number % self.world.size == self.world.rank:
                yield number, name, parameter

    @torch.no_grad()
    def load_state(self, find: Callable[[str], Tensor], steps: int) -> None:
        """Go on where `state` was taken after `steps` steps; find(name) gives a whole tensor."""
        for number, (name, parameter) in enumerate(self.model.named_parameters()):
            parameter.copy_(find(f"weight/{name}"))
            if steps and parameter.requires_grad:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(steps), device=_step_place(self.device)),
                    **{m: find(f"{m}/{name}").to(parameter.device) for m in MOMENTS},
                }
            if self.average:
                self.average[number].copy_(find(f"average/{name}"))
        self.steps = steps


class Replicated(Engine):
    """Every process holds the whole model; gradients are summed over the processes once a step."""

    def step(self, lr_factor: float) -> float:
        self._sum_gradients()
        return super().step(lr_factor)

    def _sum_gradients(self) -> None:
        for bucket in _buckets([p for p in self.model.parameters() if p.requires_grad]):
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


def adamw(model: nn.Module, optim: Optim, device: Device) -> torch.optim.AdamW:
    """Matrices decay; gains and biases do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
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

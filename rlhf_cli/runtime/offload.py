"""Frozen models that are kept in the memory of the CPU between their uses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.engine import Network, cast_parameters


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

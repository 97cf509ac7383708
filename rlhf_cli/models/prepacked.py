"""Linear layers whose weights are laid out once for many products, while a model generates on a CPU.

A packed weight is a copy: it is right as long as the weights do not change, and gone afterwards.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@dataclass(slots=True, frozen=True)
class Gain:
    """smallest: numbers in a weight from which packing it pays. rows: with so many it does."""

    smallest: int
    rows: range


USUAL = Gain(smallest=1 << 14, rows=range(2, 1 << 30))  # times a vector a matrix is only read
FOR_MKL = Gain(smallest=1 << 19, rows=range(3, 65))  # where weights no longer lie in the caches


@contextmanager
def prepacked(model: nn.Module) -> Iterator[None]:
    """The model's large linear layers multiply by packed weights meanwhile. Nothing on other devices."""
    layers = list(_layers(model))
    for layer, dtype, gain in layers:
        layer.forward = _packed_forward(layer, dtype, gain.rows)
    try:
        yield
    finally:
        for layer, *_ in layers:
            del layer.forward


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, torch.dtype, Gain]]:
    """Linear layers that gain, each with the dtype of its products."""
    if not torch.backends.mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"):
        return
    for layer in model.modules():
        if type(layer) not in (nn.Linear, Conv1D) or "forward" in vars(layer):
            continue
        dtype = _dtype(layer.weight)
        gain = _gain(dtype) if layer.weight.device.type == "cpu" else None
        if gain and layer.weight.numel() >= gain.smallest:
            yield layer, dtype, gain


def _dtype(weight: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype


@cache
def _gain(dtype: torch.dtype) -> Gain | None:
    """By what the processor is, never by a measurement: a run gives the same numbers every time.

    In float32 MKL is as fast on the processors it was made for, but for few rows and large weights.
    """
    if dtype is torch.bfloat16:  # where it is not imitated
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return USUAL if native else None
    cpuinfo = Path("/proc/cpuinfo")
    intel = cpuinfo.exists() and "GenuineIntel" in cpuinfo.read_text()
    return (FOR_MKL if intel else USUAL) if dtype is torch.float32 else None


def _packed_forward(
    layer: nn.Module, dtype: torch.dtype, rows: range
) -> Callable[[Tensor], Tensor]:
    plain = layer.forward
    weight, bias = layer.weight.detach().to(dtype), layer.bias
    if isinstance(layer, Conv1D):
        weight = weight.t()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    bias = None if bias is None else bias.detach().to(dtype)

    def forward(x: Tensor) -> Tensor:
        if x.shape[:-1].numel() not in rows:
            return plain(x)
        return torch.ops.mkldnn._linear_pointwise(x.to(dtype), packed, bias, "none", [], "")

    return forward

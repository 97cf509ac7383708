"""Linear layers whose weights are laid out once for many products, while a model generates on a CPU.

A packed weight is a copy: it is right as long as the weights do not change, and gone afterwards.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

# Fewest numbers in a weight for which oneDNN is faster, measured with 4 to 32 rows: MKL is good at small
# products in float32 on the processors it was made for, and slow on others and in bfloat16.
SMALLEST, SMALLEST_MKL = 1 << 14, 1 << 19


@contextmanager
def prepacked(model: nn.Module) -> Iterator[None]:
    """The model's large linear layers multiply by packed weights meanwhile. Nothing on other devices."""
    layers = list(_layers(model))
    for layer, dtype in layers:
        layer.forward = _packed_forward(layer, dtype)
    try:
        yield
    finally:
        for layer, _ in layers:
            del layer.forward


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, torch.dtype]]:
    """Linear layers that gain, each with the dtype of its products."""
    if not torch.backends.mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"):
        return
    for layer in model.modules():
        if type(layer) not in (nn.Linear, Conv1D) or "forward" in vars(layer):
            continue
        weight, dtype = layer.weight, _dtype(layer.weight)
        if weight.device.type == "cpu" and weight.numel() >= _smallest(dtype) and _native(dtype):
            yield layer, dtype


def _dtype(weight: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype


@cache
def _native(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies in this dtype, rather than imitating it."""
    if dtype is torch.bfloat16:
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return dtype is torch.float32


@cache
def _smallest(dtype: torch.dtype) -> int:
    """By what the processor is, never by a measurement: a run gives the same numbers every time."""
    cpuinfo = Path("/proc/cpuinfo")
    intel = cpuinfo.exists() and "GenuineIntel" in cpuinfo.read_text()
    return SMALLEST_MKL if intel and dtype is torch.float32 else SMALLEST


def _packed_forward(layer: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    plain = layer.forward
    weight, bias = layer.weight.detach().to(dtype), layer.bias
    if isinstance(layer, Conv1D):
        weight = weight.t()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    bias = None if bias is None else bias.detach().to(dtype)

    def forward(x: Tensor) -> Tensor:
        if x.shape[:-1].numel() == 1:  # a matrix times a vector only reads: packing gains nothing
            return plain(x)
        return torch.ops.mkldnn._linear_pointwise(x.to(dtype), packed, bias, "none", [], "")

    return forward

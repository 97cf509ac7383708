"""Linear layers with oneDNN-prepacked weights, for a model that generates on a CPU.

A prepacked weight is a copy, laid out once for many products: it is valid while the weights do not
change, and dropped afterwards.
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
class Threshold:
    """When prepacking is faster. min_numel: smallest weight. rows: how many rows the input must have."""

    min_numel: int
    rows: range


# A product with a single row only reads the weight once, in any layout.
DEFAULT = Threshold(min_numel=1 << 14, rows=range(2, 1 << 30))
# MKL gains only where weights do not fit the caches.
FOR_MKL = Threshold(min_numel=1 << 19, rows=range(3, 65))


@contextmanager
def prepacked(model: nn.Module) -> Iterator[None]:
    """Have the model's large linear layers use prepacked weights inside the block; only on CPUs."""
    layers = list(_layers(model))
    for layer, dtype, threshold in layers:
        layer.forward = _prepacked_forward(layer, dtype, threshold.rows)
    try:
        yield
    finally:
        for layer, *_ in layers:
            del layer.forward


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, torch.dtype, Threshold]]:
    """Yield the linear layers that get faster, each with the dtype of its products."""
    if not torch.backends.mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"):
        return
    for layer in model.modules():
        if type(layer) not in (nn.Linear, Conv1D) or "forward" in vars(layer):
            continue
        dtype = _dtype(layer.weight)
        threshold = _threshold(dtype) if layer.weight.device.type == "cpu" else None
        if threshold and layer.weight.numel() >= threshold.min_numel:
            yield layer, dtype, threshold


def _dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype that products with the weight are computed in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype


@cache
def _threshold(dtype: torch.dtype) -> Threshold | None:
    """Return when prepacking is faster in `dtype`, None for never.

    Decided by the processor's model, never by a measurement: a run gives the same numbers every time.
    """
    if dtype is torch.bfloat16:  # only where the processor has instructions for it
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return DEFAULT if native else None
    cpuinfo = Path("/proc/cpuinfo")
    # On Intel's processors MKL is as fast in float32, except for few rows and large weights.
    intel = cpuinfo.exists() and "GenuineIntel" in cpuinfo.read_text()
    return (FOR_MKL if intel else DEFAULT) if dtype is torch.float32 else None


def _prepacked_forward(
    layer: nn.Module, dtype: torch.dtype, rows: range
) -> Callable[[Tensor], Tensor]:
    """Return a forward of the layer that uses prepacked weights where the input has `rows` rows."""
    plain = layer.forward
    weight, bias = layer.weight.detach().to(dtype), layer.bias
    if isinstance(layer, Conv1D):
        weight = weight.t()
    prepacked_weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    bias = None if bias is None else bias.detach().to(dtype)

    def forward(x: Tensor) -> Tensor:
        if x.shape[:-1].numel() not in rows:
            return plain(x)
        return torch.ops.mkldnn._linear_pointwise(
            x.to(dtype), prepacked_weight, bias, "none", [], ""
        )

    return forward

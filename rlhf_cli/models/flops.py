"""Model FLOPs (PaLM, appendix B): the floating-point operations that the maths of a model needs.

Operations on padding, on logits that no loss needs and on recomputed activations do not count. A product
and its sum are two operations; norms, activation functions and softmax are left out.

The highest FLOP/s of a device are measured, so that a run can report which share it used.
"""

import time
from functools import cache
from math import nan, prod

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

# The kinds of layers that can be counted.
LAYERS = {"full_attention", "sliding_attention"}
SMALLEST, LARGEST = 128, 8192  # rows and columns of the products measured
ENOUGH = 0.01  # seconds of one product from which larger ones are not measured


def training_flops(model: nn.Module, contexts: Tensor, num_logits: int) -> float:
    """Return the FLOPs of forward and backward: each matrix is used once forward and twice backward."""
    return 3 * forward_flops(model, contexts, num_logits)


def forward_flops(model: nn.Module, contexts: Tensor, num_logits: int) -> float:
    """Return the FLOPs of a forward pass; nan for a model with matrices of another kind.

    contexts (N,): how many tokens each real token attends to, itself included. num_logits: how many tokens
    the head reads.
    """
    config = model.config.get_text_config()
    sizes, windows = _matrices(model), _windows(config)
    if sizes is None or windows is None:
        return nan
    body, head = sizes
    # FLOPs = 2 (body weights x tokens + head weights x logits) + 4 x width x attended tokens, where
    # the last term, per layer, is the products of attention: queries x keys, weights x values.
    seen = {window: int(contexts.clamp(1, window).sum()) for window in set(windows)}
    attended = sum(seen[window] for window in windows)
    return 2.0 * (body * len(contexts) + head * num_logits) + 4.0 * _width(config) * attended


def context_lengths(mask: Tensor, positions: Tensor) -> Tensor:
    """Return how many tokens of its text each real token attends to, (N,). mask, positions (B, T)"""
    return positions[mask] + 1


def _matrices(model: nn.Module) -> tuple[int, int] | None:
    """Return the number of weights of linear layers, in the body and in the head; None if there are others.

    Embeddings are not products. A tied head is a layer of its own.
    """
    inside = set(getattr(model, model.base_model_prefix).modules())
    body = head = 0
    for module in model.modules():
        size = sum(prod(shape) for shape in _shapes(module) if len(shape) >= 2)
        if isinstance(module, (nn.Linear, Conv1D)):
            body, head = (body + size, head) if module in inside else (body, head + size)
        elif size and not isinstance(module, nn.Embedding):
            return None
    return body, head


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    """Return the full shapes of the module's own parameters; ds_shape is that of a ZeRO-3 shard."""
    own = module.parameters(recurse=False)
    return [tuple(getattr(parameter, "ds_shape", parameter.shape)) for parameter in own]


def _windows(config: PretrainedConfig) -> list[int | None] | None:
    """Return each layer's window, None for no limit; None in all for layers of another kind."""
    window = getattr(config, "sliding_window", None)
    usual = "full_attention" if window is None else "sliding_attention"
    kinds = getattr(config, "layer_types", None) or [usual] * config.num_hidden_layers
    if not set(kinds) <= LAYERS:
        return None
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _width(config: PretrainedConfig) -> int:
    """Return the width of all heads' queries together."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_attention_heads * size


@cache
def measured_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of the fastest square matrix product found in a tenth of a second.

    On all threads of this process; with a generator of its own, so that no other random number changes.
    """
    generator = torch.Generator(device).manual_seed(0)
    best, seconds, size = 0.0, 0.0, SMALLEST
    while size <= LARGEST and seconds < ENOUGH:
        x = torch.randn(size, size, generator=generator, device=device, dtype=dtype)
        seconds = min(_seconds(x) for _ in range(3))
        best, size = max(best, 2 * size**3 / seconds), 2 * size
    return best


def _seconds(x: torch.Tensor) -> float:
    """Return the seconds of x @ x; float() waits for the device."""
    before = time.perf_counter()
    float((x @ x)[0, 0])
    return time.perf_counter() - before

"""How many floating-point operations the maths of a model needs, by its matrices and the texts it reads.

These are *model* FLOPs (PaLM, appendix B): what a program does besides, for padding, for logits that
nobody asked for, for activations it did not keep, counts for nothing. A product and its sum are two
operations; norms, activation functions and softmax are left out.
"""

from math import nan, prod

from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

LAYERS = {"full_attention", "sliding_attention"}


def training_flops(model: nn.Module, contexts: Tensor, asked: int) -> float:
    """Forward and backward: each matrix is used once forward and twice backward."""
    return 3 * forward_flops(model, contexts, asked)


def forward_flops(model: nn.Module, contexts: Tensor, asked: int) -> float:
    """contexts (N,): of each real token, how many tokens it attends to, itself among them. asked: how
    many of them the head reads. nan for a model in which something else than these multiplies."""
    config = model.config.get_text_config()
    sizes, windows = _matrices(model), _windows(config)
    if sizes is None or windows is None:
        return nan
    body, head = sizes
    seen = {window: int(contexts.clamp(1, window).sum()) for window in set(windows)}
    attended = sum(seen[window] for window in windows)
    return 2.0 * (body * len(contexts) + head * asked) + 4.0 * _width(config) * attended


def context_lengths(mask: Tensor, positions: Tensor) -> Tensor:
    """Every real token attends to those before it in its text, and to itself. mask, positions (B, T)"""
    return positions[mask] + 1


def _matrices(model: nn.Module) -> tuple[int, int] | None:
    """Weights of the linear layers, in the body and in the head; None if other matrices multiply.

    Embeddings only look up. A tied head is a layer of its own.
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
    """Of the module's own parameters; a shard (ZeRO-3) knows the whole's."""
    own = module.parameters(recurse=False)
    return [tuple(getattr(parameter, "ds_shape", parameter.shape)) for parameter in own]


def _windows(config: PretrainedConfig) -> list[int | None] | None:
    """How far back each layer attends, None for all the way; None for layers of another kind."""
    window = getattr(config, "sliding_window", None)
    usual = "full_attention" if window is None else "sliding_attention"
    kinds = getattr(config, "layer_types", None) or [usual] * config.num_hidden_layers
    if not set(kinds) <= LAYERS:
        return None
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _width(config: PretrainedConfig) -> int:
    """Numbers of all heads' queries together."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_attention_heads * size

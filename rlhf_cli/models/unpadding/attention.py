"""The attention that reads padded rows as one row without padding and keeps its texts apart.

`enable_unpadding` sets this attention in a model that can be read so. It is torch's own wherever no
`Unpadded` is passed in: sampling with a cache and padded forward passes do not change. Texts of one length
are neighbours, so that they are one batch of attention.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf_cli.models.unpadding.rows import Unpadded

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

ATTENTION = "rlhf_unpadded"
# Their attention is causal, through transformers' interface, with positions given; their logits are
# what the output embedding makes of the last hidden state.
FAMILIES = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "gemma", "gemma3_text"}
)
BREAKS = ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention")


@dataclass(slots=True, frozen=True)
class AttentionSettings:
    """What a layer's attention is computed with. window: tokens that one attends to, itself included."""

    dropout: float
    scaling: float | None
    window: int | None


def is_proved(config: PretrainedConfig) -> bool:
    """Return whether tests prove that every fast path is right for the architecture."""
    return config.model_type in FAMILIES and not any(getattr(config, name, None) for name in BREAKS)


def can_unpad(config: PretrainedConfig) -> bool:
    """Return whether the architecture gives the same numbers without padding as with it."""
    return is_proved(config) and config._attn_implementation == "sdpa"


def enable_unpadding(model: nn.Module) -> nn.Module:
    """Have forward passes read the model's rows without padding, where its architecture allows that."""
    if can_unpad(model.config):
        model.config._attn_implementation = ATTENTION
    return model


def unpadded_states(body: nn.Module, tokens: Tensor, unpadded: Unpadded) -> Tensor:
    """Return the last hidden state of every computed token. tokens (B, T) -> (N, D)"""
    # A mask of four dimensions is passed on as it is, so transformers builds none; it is never read.
    no_mask = torch.empty(1, 1, 1, 1, device=tokens.device)
    computed = slice(None) if unpadded.computed_index is None else unpadded.computed_index
    output = body(
        input_ids=tokens.flatten()[unpadded.index[computed]][None],
        position_ids=unpadded.positions[computed][None],
        attention_mask=no_mask,
        use_cache=False,
        unpadded=unpadded,
    )
    return output.last_hidden_state[0]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    unpadded: Unpadded | None = None,
    **others,
) -> tuple[Tensor, None]:
    """Compute causal attention within each text of an unpadded row; without one, torch's own attention.

    query (1, H, N, d), key, value (1, G, N, d) -> (1, N, H, d)
    """
    if unpadded is None:
        others |= {"dropout": dropout, "scaling": scaling}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **others)
    settings = AttentionSettings(dropout, scaling, sliding_window)
    attention = _varlen_attention if _has_varlen_kernel(query, dropout) else _attention_per_length
    rows = (x[0] for x in (query, key, value))
    if unpadded.source_index is None:
        return attention(*rows, unpadded, settings)[None], None
    # Queries, keys and values are computed once per shared token and copied to all of its texts here:
    # attention itself is the only step in which texts of one prefix differ.
    rows = (_take_rows(x.transpose(0, 1), unpadded.source_index).transpose(0, 1) for x in rows)
    found = attention(*rows, unpadded, settings)
    return _take_rows(found, unpadded.computed_index)[None], None


def _take_rows(x: Tensor, which: Tensor) -> Tensor:
    """Return x[which]; of all ways to choose rows the embedding has the fastest gradient. (N, H, d)"""
    return embedding(which, x.flatten(1)).unflatten(1, x.shape[1:])


def _attention_per_length(
    query: Tensor, key: Tensor, value: Tensor, unpadded: Unpadded, settings: AttentionSettings
) -> Tensor:
    """Call torch's causal attention once for all texts of each length. query (H, N, d) -> (N, H, d)"""
    runs, found, narrow = unpadded.equal_length_runs(), [], compute_dtype(query)
    sizes = [count * length for count, length in runs]
    # On a CPU the gradient of torch's attention takes five times as long in bfloat16 as in float32.
    wide = query.device.type == "cpu"
    with torch.autocast("cpu", enabled=False) if wide else nullcontext():
        whole = (x.float() if wide else x for x in (query, key, value))
        pieces = zip(*(x.split(sizes, dim=1) for x in whole), strict=True)
        for (count, length), piece in zip(runs, pieces, strict=True):
            q, k, v = (x.unflatten(1, (count, length)).transpose(0, 1) for x in piece)
            band = _window_mask(length, settings.window, query.device)
            part = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=band,
                dropout_p=settings.dropout,
                # torch takes a mask or is_causal, not both; the band of a window is causal itself.
                is_causal=band is None,
                scale=settings.scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            found.append(part.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).to(narrow)


def _varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, unpadded: Unpadded, settings: AttentionSettings
) -> Tensor:
    """Compute the same in one call of torch's flash attention for texts of several lengths."""
    dtype = compute_dtype(query)
    longest = unpadded.lengths[-1]
    return varlen_attn(
        *(x.transpose(0, 1).to(dtype) for x in (query, key, value)),
        unpadded.cu_seqlens,
        unpadded.cu_seqlens,
        longest,
        longest,
        scale=settings.scaling,
        window_size=(-1 if settings.window is None else settings.window - 1, 0),
        enable_gqa=query.shape[0] != key.shape[0],
    )


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that products with x are computed in: autocast's, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _has_varlen_kernel(query: Tensor, dropout: float) -> bool:
    """Return whether torch's varlen flash attention takes this query: GPUs since Ampere, 16 bits."""
    return (
        query.device.type == "cuda"
        and varlen_attn is not None
        and {"window_size", "enable_gqa"} <= signature(varlen_attn).parameters.keys()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and compute_dtype(query) in (torch.float16, torch.bfloat16)
        and dropout == 0
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
    )


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return which tokens attend to which, (L, L) bool; None where the window holds the whole text."""
    if window is None or length <= window:
        return None
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)

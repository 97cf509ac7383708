"""Padded rows as one row without padding, and the attention that keeps its texts apart.

`enable` gives a model that can read such rows our attention, which is torch's own wherever no packing
is handed in: sampling with a cache and padded forwards stay as they were. Texts of one length lie side
by side, so that they are attended to as one batch.
"""

from contextlib import nullcontext
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf_cli.models.packed_rows import Packing

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

NAME = "rlhf_packed"
# Their attention is causal, through transformers' interface, with positions given; their logits are
# what the output embedding makes of the last hidden state.
FAMILIES = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "gemma", "gemma3_text"}
)
BREAKS = ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention")


def known(config: PretrainedConfig) -> bool:
    """Whether tests prove that every fast way is right for the architecture."""
    return config.model_type in FAMILIES and not any(getattr(config, name, None) for name in BREAKS)


def packable(config: PretrainedConfig) -> bool:
    """Whether the architecture gives the same numbers in a packed row as in padded ones."""
    return known(config) and config._attn_implementation == "sdpa"


def enable(model: nn.Module) -> nn.Module:
    """From here on scoring packs the model's rows, where its architecture allows that."""
    if packable(model.config):
        model.config._attn_implementation = NAME
    return model


def enabled(model: nn.Module) -> bool:
    return model.config._attn_implementation == NAME


def packed_states(body: nn.Module, tokens: Tensor, packing: Packing) -> Tensor:
    """The last hidden state of every token that is read. tokens (B, T) -> (N, D)"""
    whole = torch.empty(1, 1, 1, 1, device=tokens.device)  # in place of a mask: no other is made
    read = slice(None) if packing.read is None else packing.read
    output = body(
        input_ids=tokens.flatten()[packing.index[read]][None],
        position_ids=packing.positions[read][None],
        attention_mask=whole,
        use_cache=False,
        packing=packing,
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
    packing: Packing | None = None,
    **settings,
) -> tuple[Tensor, None]:
    """Causal attention within each text of a packed row; without a packing torch's own.

    query (1, H, N, d) . key, value (1, G, N, d) -> (1, N, H, d)
    """
    if packing is None:
        settings |= {"dropout": dropout, "scaling": scaling}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    way = _at_once if _has_kernel(query, dropout) else _one_by_one
    rows = (x[0] for x in (query, key, value))
    if packing.stands is None:
        return way(*rows, packing, dropout, scaling, sliding_window)[None], None
    rows = (_chosen(x.transpose(0, 1), packing.stands).transpose(0, 1) for x in rows)
    found = way(*rows, packing, dropout, scaling, sliding_window)
    return _chosen(found, packing.read)[None], None


def _chosen(x: Tensor, which: Tensor) -> Tensor:
    """x[which], by the embedding: of all ways to choose rows its gradient is the fastest. (N, H, d)"""
    return embedding(which, x.flatten(1)).unflatten(1, x.shape[1:])


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """torch's causal attention, once for all texts of a length. query (H, N, d) -> (N, H, d)

    On a CPU in float32 always: in bfloat16 the gradient of torch's attention takes five times as long.
    """
    runs, found, narrow = packing.runs(), [], computed_in(query)
    sizes = [count * length for count, length in runs]
    wide = query.device.type == "cpu"
    with torch.autocast("cpu", enabled=False) if wide else nullcontext():
        whole = (x.float() if wide else x for x in (query, key, value))
        pieces = zip(*(x.split(sizes, dim=1) for x in whole), strict=True)
        for (count, length), piece in zip(runs, pieces, strict=True):
            q, k, v = (x.unflatten(1, (count, length)).transpose(0, 1) for x in piece)
            band = _band(length, window, query.device)
            part = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=band,
                dropout_p=dropout,
                is_causal=band is None,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            found.append(part.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).to(narrow)


def _at_once(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """The same in one call of torch's flash attention for texts of several lengths."""
    dtype = computed_in(query)
    longest = packing.lengths[-1]
    return varlen_attn(
        *(x.transpose(0, 1).to(dtype) for x in (query, key, value)),
        packing.bounds,
        packing.bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[0] != key.shape[0],
    )


def computed_in(x: Tensor) -> torch.dtype:
    """What products with x are computed in: autocast's dtype, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _has_kernel(query: Tensor, dropout: float) -> bool:
    """Whether torch's flash attention for several lengths takes this query: GPUs since Ampere, 16 bits."""
    return (
        query.device.type == "cuda"
        and varlen_attn is not None
        and {"window_size", "enable_gqa"} <= signature(varlen_attn).parameters.keys()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and computed_in(query) in (torch.float16, torch.bfloat16)
        and dropout == 0
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
    )


def _band(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which tokens see which where a sliding window is shorter than the text. -> (L, L) bool"""
    if window is None or length <= window:
        return None
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)

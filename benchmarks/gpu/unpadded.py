"""Correctness of unpadded attention: log-probs and gradients with and without padding.

The reference is the padded float32 pass. In bfloat16 the errors of unpadded passes must not exceed that
of the padded pass.
"""

import torch
from common import LARGE, SMALL, Found, llama, rows, section
from torch import nn

from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.masking import position_ids
from rlhf_cli.models.forward import text_logprobs
from rlhf_cli.models.unpadding import attention

SLACK = 1.5  # times the error of the padded pass


def reading(model: nn.Module, batch: SFTBatch, dtype: torch.dtype, *, way: str):
    """Return (log-probs of real tokens, gradients of their mean), flat and in float32."""
    model.config._attn_implementation = "sdpa" if way == "padded" else attention.ATTENTION
    has_kernel = attention._has_varlen_kernel
    if way == "unpadded, text by text":
        attention._has_varlen_kernel = lambda *_: False
    try:
        model.zero_grad()
        place = batch.tokens.device.type
        with torch.autocast(place, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            logprobs = text_logprobs(model, batch)
        supervised = logprobs[batch.loss_mask[:, 1:]].float()
        supervised.mean().backward()
    finally:
        attention._has_varlen_kernel = has_kernel
    gradient = torch.cat([p.grad.float().flatten() for p in model.parameters()])
    return supervised.detach(), gradient


def gap(found, expected) -> dict[str, float]:
    (logprobs, gradient), (right, slope) = found, expected
    return {
        "logprob_max": float((logprobs - right).abs().max()),
        "logprob_mean": float((logprobs - right).abs().mean()),
        "gradient": float((gradient - slope).norm() / slope.norm()),
    }


def uses_kernel(place: torch.device) -> bool:
    """Return whether bfloat16 attention here is one call for all texts."""
    query = torch.zeros(1, 4, 64, device=place, dtype=torch.bfloat16)
    return attention._has_varlen_kernel(query, 0.0)


def parity(found: Found, place: torch.device, rehearse: bool) -> None:
    shape = SMALL if rehearse else LARGE | {"num_hidden_layers": 6}
    tokens, mask = rows(8, 40 if rehearse else 700, shape["vocab_size"], left=False)
    loss_mask = mask.clone()
    loss_mask[:, 0] = False
    batch = SFTBatch(
        tokens=tokens, mask=mask, loss_mask=loss_mask, positions=position_ids(mask), packed=False
    ).to(place)
    model = llama(shape, place=place).train()
    right = reading(model, batch, torch.float32, way="padded")
    found["float32, unpadded"] = exact = gap(
        reading(model, batch, torch.float32, way="unpadded"), right
    )
    errors = {
        way: gap(reading(model, batch, torch.bfloat16, way=way), right)
        for way in ("padded", "unpadded, text by text", "unpadded")
    }
    for way, error in errors.items():
        found[f"bfloat16, {way}"] = error
    found["one_call_for_all_texts"] = uses_kernel(place)
    padded_errors = errors.pop("padded")
    fair = all(
        error[what] <= SLACK * padded_errors[what]
        for error in errors.values()
        for what in padded_errors
    )
    found["ok"] = exact["logprob_max"] < 1e-3 and exact["gradient"] < 1e-3 and fair


if __name__ == "__main__":
    section(parity)

"""Is unpadded attention right? Log-probs and gradients of one network, read with and without padding.

The yardstick is the padded float32 reading. In bfloat16 the unpadded ways may be as far from it as the
padded way is, and no farther.
"""

import torch
from common import LARGE, SMALL, Found, llama, rows, section
from torch import nn

from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.masking import position_ids
from rlhf_cli.models.forward import text_logprobs
from rlhf_cli.models.unpadding import attention

SLACK = 1.5  # times the padded way's own error


def reading(model: nn.Module, batch: SFTBatch, dtype: torch.dtype, *, way: str):
    """(log-probs of real tokens, gradients of their mean), each flat and in float32."""
    model.config._attn_implementation = "sdpa" if way == "padded" else attention.ATTENTION
    has_kernel = attention._has_varlen_kernel
    if way == "unpadded, text by text":
        attention._has_varlen_kernel = lambda *_: False
    try:
        model.zero_grad()
        place = batch.tokens.device.type
        with torch.autocast(place, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            logprobs = text_logprobs(model, batch)
        asked = logprobs[batch.loss_mask[:, 1:]].float()
        asked.mean().backward()
    finally:
        attention._has_varlen_kernel = has_kernel
    gradient = torch.cat([p.grad.float().flatten() for p in model.parameters()])
    return asked.detach(), gradient


def gap(found, expected) -> dict[str, float]:
    (logprobs, gradient), (right, slope) = found, expected
    return {
        "logprob_max": float((logprobs - right).abs().max()),
        "logprob_mean": float((logprobs - right).abs().mean()),
        "gradient": float((gradient - slope).norm() / slope.norm()),
    }


def uses_kernel(place: torch.device) -> bool:
    """Whether bfloat16 attention here is one call for all texts."""
    query = torch.zeros(1, 4, 64, device=place, dtype=torch.bfloat16)
    return attention._has_varlen_kernel(query, 0.0)


def parity(found: Found, place: torch.device, rehearse: bool) -> None:
    shape = SMALL if rehearse else LARGE | {"num_hidden_layers": 6}
    tokens, mask = rows(8, 40 if rehearse else 700, shape["vocab_size"], left=False)
    asked = mask.clone()
    asked[:, 0] = False
    batch = SFTBatch(
        tokens=tokens, mask=mask, loss_mask=asked, positions=position_ids(mask), packed=False
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
    own = errors.pop("padded")
    fair = all(error[what] <= SLACK * own[what] for error in errors.values() for what in own)
    found["ok"] = exact["logprob_max"] < 1e-3 and exact["gradient"] < 1e-3 and fair


if __name__ == "__main__":
    section(parity)

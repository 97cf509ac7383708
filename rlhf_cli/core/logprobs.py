"""Log-probabilities and entropies of a categorical over the vocabulary, in float32 or better.

The vocabulary is wide, so nothing of its width is kept for the backward pass but the logits
themselves, in their own dtype; the work is done a few rows at a time.
"""

import torch
from torch import Tensor

ROW_BUDGET = 1 << 24  # numbers of float32 in flight at a time: 64 MiB


def _rows(logits: Tensor) -> int:
    return max(1, ROW_BUDGET // logits.shape[-1])


def _wide(logits: Tensor, temperature: float) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature


class _TokenLogprobs(torch.autograd.Function):
    """log softmax(logits / temperature)[token]; the softmax is recomputed in backward."""

    @staticmethod
    def forward(ctx, logits, tokens, temperature):
        parts = []
        for part, token in zip(
            logits.split(_rows(logits)), tokens.split(_rows(logits)), strict=True
        ):
            wide = _wide(part, temperature)
            normaliser = wide.logsumexp(-1)
            chosen = wide.gather(-1, token[:, None]).squeeze(-1)
            parts.append(torch.stack((chosen - normaliser, normaliser)))
        logprobs, normalisers = torch.cat(parts, dim=1)
        ctx.save_for_backward(logits, tokens, normalisers)
        ctx.temperature = temperature
        return logprobs

    @staticmethod
    def backward(ctx, grad):
        logits, tokens, normalisers = ctx.saved_tensors
        out = torch.empty_like(logits)
        for i in range(0, len(logits), _rows(logits)):
            rows = slice(i, i + _rows(logits))
            slope = grad[rows, None] / ctx.temperature
            wide = _wide(logits[rows], ctx.temperature)
            wide = wide.sub_(normalisers[rows, None]).exp_().mul_(-slope)
            out[rows] = wide.scatter_add_(-1, tokens[rows, None], slope)
        return out, None, None


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each token under softmax(logits / temperature), the sampler's own law.

    logits (B, R, V), column t predicting token t . tokens (B, R) -> (B, R), at least float32
    """
    flat = logits.reshape(-1, logits.shape[-1])
    return _TokenLogprobs.apply(flat, tokens.reshape(-1), temperature).view(tokens.shape)


def entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """Entropy in nats of softmax(logits / temperature); 0 log 0 is 0.

    Differentiable; wrap in torch.no_grad() when it is only logged. (B, R, V) -> (B, R)
    """
    flat = logits.reshape(-1, logits.shape[-1])
    parts = [
        torch.special.entr(_wide(part, temperature).softmax(-1)).sum(-1)
        for part in flat.split(_rows(flat))
    ]
    return torch.cat(parts).view(logits.shape[:-1])

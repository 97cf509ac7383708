"""Log-probabilities and entropies of a categorical over the vocabulary, in float32 or better.

The vocabulary is wide, so the backward pass keeps nothing of its width but the logits, in their own
dtype, and not even those if the head that computes them is given; rows are processed a few at a time.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear

ROW_BUDGET = 1 << 24  # float32 numbers processed at a time: 64 MiB


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
    """Return the log-probability of each token under softmax(logits / temperature), as it is sampled.

    logits (B, R, V), column t predicting token t. tokens (B, R) -> (B, R), at least float32
    """
    flat = logits.reshape(-1, logits.shape[-1])
    return _TokenLogprobs.apply(flat, tokens.reshape(-1), temperature).view(tokens.shape)


def entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """Return the entropy in nats of softmax(logits / temperature); 0 log 0 is 0.

    Differentiable; wrap in torch.no_grad() when it is only logged. (B, R, V) -> (B, R)
    """
    flat = logits.reshape(-1, logits.shape[-1])
    parts = [
        torch.special.entr(_wide(part, temperature).softmax(-1)).sum(-1)
        for part in flat.split(_rows(flat))
    ]
    return torch.cat(parts).view(logits.shape[:-1])


class _HeadLogprobs(torch.autograd.Function):
    """token_logprobs and entropy of linear(hidden, weight, bias), whose logits never exist all at once.

    The softmax is recomputed in backward, unless a single chunk held all of it.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, tokens, temperature, learns):
        found, kept, chunks = [], None, list(_chunks(len(hidden), len(weight)))
        for rows in chunks:
            wide = _head_logits(hidden[rows], weight, bias, temperature)
            chosen = wide.gather(-1, tokens[rows, None]).squeeze(-1)
            top = wide.amax(-1)
            share = wide.sub_(top[:, None]).exp()
            mass = share.sum(-1)
            mean = wide.mul_(share).sum(-1) / mass
            found.append(torch.stack((chosen - top - mass.log(), mass.log() - mean)))
            kept = share.div_(mass[:, None]) if learns and len(chunks) == 1 else None
        logprobs, entropies = torch.cat(found, dim=1)
        ctx.save_for_backward(hidden, weight, bias, tokens, kept)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx, grad, _):
        hidden, weight, bias, tokens, kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        wide_dtype = torch.promote_types(weight.dtype, torch.float32)
        to_hidden = torch.empty_like(hidden) if wanted[0] else None
        to_weight = torch.zeros_like(weight, dtype=wide_dtype) if wanted[1] else None
        to_bias = torch.zeros_like(bias, dtype=wide_dtype) if wanted[2] else None
        for rows in _chunks(len(hidden), len(weight)):
            slope = grad[rows, None] / ctx.temperature
            if kept is None:
                wide = _head_logits(hidden[rows], weight, bias, ctx.temperature)
                wide = wide.softmax(-1).mul_(-slope)
            else:
                wide = kept * -slope
            wide.scatter_add_(-1, tokens[rows, None], slope)
            if wanted[2]:
                to_bias += wide.sum(0)
            wide = wide.to(hidden.dtype)
            if wanted[0]:
                to_hidden[rows] = wide @ weight
            if wanted[1]:
                to_weight += wide.T @ hidden[rows]
        to_weight = to_weight if to_weight is None else to_weight.to(weight.dtype)
        to_bias = to_bias if to_bias is None else to_bias.to(bias.dtype)
        return to_hidden, to_weight, to_bias, None, None, None


def _chunks(num_rows: int, width: int) -> Iterator[slice]:
    """Yield all rows, a few at a time; one empty chunk if there are none."""
    size = max(1, ROW_BUDGET // width)
    for start in range(0, max(num_rows, 1), size):
        yield slice(start, start + size)


def _head_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = linear(hidden, weight, bias)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).div_(temperature)


def head_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return token_logprobs and entropy of a linear head's logits; the entropy has no gradient.

    hidden (n, D), weight (V, D), bias (V,), tokens (n,) -> two (n,), at least float32
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    return _HeadLogprobs.apply(hidden, weight, bias, tokens, temperature, torch.is_grad_enabled())

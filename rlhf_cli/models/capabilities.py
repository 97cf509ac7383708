"""What a model can do, found by trial: a fast path is used only where it agrees with the forward pass.

The families listed in unpadding/attention.py are proved by tests. Any other model is tried once, on a few
short texts: whether it is causal, whether padding at the right changes its texts, which decoder gives the
logits of complete forward passes, whether texts that share a row are kept apart.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlhf_cli.config.errors import UserError
from rlhf_cli.core.masking import real_first
from rlhf_cli.models.forward import accepts, reads_unpadded
from rlhf_cli.models.generation.decoding import (
    Decoder,
    FastDecoder,
    PlainDecoder,
    UncachedDecoder,
    has_key_value_cache,
)
from rlhf_cli.models.load import is_noisy
from rlhf_cli.models.load_errors import first_line
from rlhf_cli.models.unpadding.attention import ATTENTION, compute_dtype, is_proved

LENGTHS = (5, 13, 9)  # tokens of the prompts that decoders are tried on
STEPS, COPIES = 5, 2
# Tokens of both texts of each prompt; those of the longest prompt end early.
NUM_TAKEN = (5, 1, 1, 2, 5, 1)
# Largest mean difference of two computations of the same logits, in standard deviations of the logits.
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.1}

_decoders: WeakKeyDictionary[nn.Module, type[Decoder]] = WeakKeyDictionary()


def decoder_for(model: nn.Module) -> type[Decoder]:
    """Return the fastest decoder that is right for the model; UserError where none can be.

    The model is tried on the first call, in evaluation mode and in the precision set around the call.
    """
    if model not in _decoders:
        known = is_proved(model.config)
        _decoders[model] = FastDecoder if known else _first_agreeing(model)
    return _decoders[model]


def _first_agreeing(model: nn.Module) -> type[Decoder]:
    """Return the first decoder, from fast to slow, that agrees with complete forward passes."""
    require_causal(model)
    expected = decoder_logits(model, UncachedDecoder)
    for kind in (FastDecoder, PlainDecoder) if _may_be_fast(model) else (PlainDecoder,):
        if _agrees(model, kind, expected):
            return kind
    return UncachedDecoder


def _may_be_fast(model: nn.Module) -> bool:
    """Return whether FastDecoder is worth a trial; some configurations cannot be asked for their cache."""
    try:
        return has_key_value_cache(model)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _agrees(model: nn.Module, kind: type[Decoder], expected: Tensor) -> bool:
    """Return whether the decoder gives the logits of complete forward passes; False if it raises."""
    try:
        return close(decoder_logits(model, kind), expected)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - a cache that is not the model's own can fail in any way
        return False


@torch.no_grad()
def decoder_logits(model: nn.Module, kind: type[Decoder]) -> Tensor:
    """Return the logits that a decoder gives along fixed texts of which some end early, 0 after the end.

    -> (STEPS, rows, V) float32
    """
    prompts, mask = _prompts(model)
    num = len(prompts) * COPIES
    tokens = _tokens(model, num * STEPS, start=1000).view(num, STEPS).to(prompts.device)
    last = torch.tensor(NUM_TAKEN, device=prompts.device)
    decoder = kind(model, prompts, mask, copies=COPIES, max_new_tokens=STEPS)
    found = []
    for step in range(STEPS):
        running = last[decoder.rows] > step
        logits = decoder.logits.float()
        blank = logits.new_zeros(num, logits.shape[-1])
        blank[decoder.rows[running]] = logits[running]
        found.append(blank)
        if step + 1 < STEPS:
            decoder.keep(last[decoder.rows] > step + 1)
            decoder.feed(tokens[decoder.rows, step])
    return torch.stack(found)


def _prompts(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return left-padded prompts of several lengths. -> tokens, mask (3, P)"""
    width = max(LENGTHS)
    tokens = _tokens(model, len(LENGTHS) * width).view(len(LENGTHS), width)
    mask = torch.arange(width) >= width - torch.tensor(LENGTHS)[:, None]
    place = next(model.parameters()).device
    return tokens.masked_fill(~mask, 0).to(place), mask.to(place)


def _tokens(model: nn.Module, num: int, start: int = 0) -> Tensor:
    """Return fixed pseudo-random token ids; 0, often padding, is not among them."""
    size = model.config.get_text_config().vocab_size
    return (torch.arange(start + 1, start + num + 1) * 7919 % 104729) % (size - 1) + 1


def close(found: Tensor, expected: Tensor) -> bool:
    """Return whether logits, in float32, agree up to the rounding of the dtype that computed them."""
    spread = expected.std() + 1e-12
    return bool((found - expected).abs().mean() / spread <= CLOSE[compute_dtype(expected)])


@torch.no_grad()
def require_causal(model: nn.Module) -> None:
    """Raise UserError if logits are random, or depend on later tokens or the padding behind a text."""
    prompts, mask = _prompts(model)
    order, aligned = real_first(mask)
    rows = prompts.gather(1, order)
    shortest, width = int(mask.sum(1).argmin()), min(LENGTHS)
    try:
        whole = [
            logits_of(model, row[None, :length]) for row, length in zip(rows, LENGTHS, strict=True)
        ]
        again = logits_of(model, rows[shortest : shortest + 1, :width])
        longest = int(mask.sum(1).argmax())
        start = logits_of(model, rows[longest : longest + 1, :width])
        batch = logits_of(model, rows, aligned.long())
        with training(model):
            learned = logits_of(model, rows, aligned.long())
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        why = f"its forward pass fails on plain texts ({first_line(error)})"
        raise _refused(model, why) from error
    if not close(again, whole[shortest]):
        raise _refused(model, "it predicts something else each time it reads a text")
    if not is_noisy(model.config) and not close(learned[aligned], batch[aligned]):
        raise _refused(model, "in training it predicts something else, though every dropout is 0")
    if not close(whole[longest][:, :width], start):
        raise _refused(
            model, "what it predicts depends on later tokens: it is no causal language model"
        )
    beside = [row[None, :length] for row, length in zip(batch, LENGTHS, strict=True)]
    if not close(torch.cat(beside, dim=1), torch.cat(whole, dim=1)):
        raise _refused(model, "what it predicts depends on the padding behind a text")


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Put the model in training mode inside the block."""
    before = model.training
    model.train()
    try:
        yield
    finally:
        model.train(before)


def _refused(model: nn.Module, why: str) -> UserError:
    return UserError(
        f"{type(model).__name__} cannot be trained or sampled here: {why}; choose another model"
    )


def logits_of(model: nn.Module, tokens: Tensor, mask: Tensor | None = None, **settings) -> Tensor:
    """Return the logits of a complete forward pass, float32. tokens, mask (B, T) -> (B, T, V)"""
    return model(input_ids=tokens, attention_mask=mask, use_cache=False, **settings).logits.float()


@torch.no_grad()
def separates_packed_texts(model: nn.Module) -> bool:
    """Return whether two texts in one row, separated by their positions, do not see each other."""
    if reads_unpadded(model):
        return True
    if not accepts(model, "position_ids"):
        return False
    prompts, _ = _prompts(model)
    (first, other), second = prompts[:2, -5:], prompts[2, -9:]
    positions = torch.cat([torch.arange(5), torch.arange(9)])[None].to(prompts.device)
    expected = logits_of(model, second[None])[0]
    rows = [torch.cat([text, second])[None] for text in (first, other)]
    return all(
        close(logits_of(model, row, position_ids=positions)[0, 5:], expected) for row in rows
    )


def describe(model: nn.Module, *, samples: bool = True) -> str:
    """Return one line: attention, how rows are read, how it is sampled; tries the model for it.

    samples: the model is a language model that will be sampled from.
    """
    attention = {ATTENTION: "sdpa"}.get(found := model.config._attn_implementation, found)
    rows = "without padding" if reads_unpadded(model) else "with their padding"
    ways = {
        FastDecoder: ", sampled with a cache written in place",
        PlainDecoder: ", sampled with the cache of transformers",
        UncachedDecoder: ", sampled by complete forward passes, which is slow: no cache agrees with them",
    }
    way = ways[decoder_for(model)] if samples else ""
    return f"{type(model).__name__}: attention {attention}, rows read {rows}{way}"

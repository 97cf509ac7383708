"""Forward passes over given tokens: log-probs of responses and texts, scalars of sequences.

A model prepared by `unpadding.attention.enable_unpadding` reads its rows without padding, and its head
reads only the tokens whose result is wanted. Any other model reads them padded; both give the same
numbers. Values returned at pads are undefined.
"""

import inspect
from collections.abc import Callable
from functools import cache, cached_property

import torch
from torch import Tensor, nn

from rlhf_cli.core.batches import PreferenceBatch, SFTBatch
from rlhf_cli.core.logprobs import entropy, head_logprobs, token_logprobs
from rlhf_cli.core.masking import last_true_index, position_ids, real_first, zero_pads
from rlhf_cli.models.load import is_noisy
from rlhf_cli.models.unpadding.attention import ATTENTION, unpadded_states
from rlhf_cli.models.unpadding.rows import Unpadded, unpad


def reads_unpadded(model: nn.Module) -> bool:
    """Return whether `enable_unpadding` has prepared the model."""
    return model.config._attn_implementation == ATTENTION


@cache
def _parameters(forward: Callable) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def accepts(model: nn.Module, name: str) -> bool:
    """Return whether the model's forward names this argument (OPT, for one, has no position_ids)."""
    return name in _parameters(getattr(model.forward, "__func__", model.forward))


class ModelInputs:
    """Prompts joined with their responses, as every network reads them; unpadded at most once.

    batch: a Rollout, or an object with its prompts, responses and their masks. tokens, mask (B, P + R)
    """

    def __init__(self, batch):
        self.batch, self.prompt_width = batch, batch.prompts.shape[1]
        self.tokens = torch.cat([batch.prompts, batch.responses], dim=1)
        self.mask = torch.cat([batch.prompt_mask, batch.response_mask], dim=1)
        self._unpadded: dict[bool, Unpadded] = {}

    def unpadded(self, *, share_prefixes: bool) -> Unpadded:
        """Return the rows without padding, the same for every network: unpadding waits for the device."""
        if share_prefixes not in self._unpadded:
            tokens = self.tokens if share_prefixes else None
            self._unpadded[share_prefixes] = unpad(self.mask, position_ids(self.mask), tokens)
        return self._unpadded[share_prefixes]

    @cached_property
    def is_response(self) -> Tensor:
        """Return which of all columns hold response tokens, (B, P + R) bool."""
        prompts = torch.zeros_like(self.batch.prompt_mask)
        return torch.cat([prompts, self.batch.response_mask], dim=1)


def _forward(model: nn.Module, tokens: Tensor, mask: Tensor, **settings):
    """Run the model over rows whose real tokens are at the left. tokens, mask (B, T)

    Padding follows everything that a causal model carries along a row, recurrent states too, and the
    model numbers positions as in its training.
    """
    return model(input_ids=tokens, attention_mask=mask.long(), use_cache=False, **settings)


def sequence_logits(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the logits at every position of rows padded at the right. tokens, mask (B, T) -> (B, T, V)"""
    return _forward(model, tokens, mask).logits


def label_probabilities(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the probability of every label of a text classifier. tokens, mask (B, T) -> (B, labels)

    Labels of which several may hold, and one alone, are independent of each other.
    """
    logits = model(input_ids=tokens, attention_mask=mask.long()).logits.float()
    several = model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1
    return logits.sigmoid() if several else logits.softmax(1)


def packed_logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    """Return the logits of packed rows, whose texts are kept apart by positions that restart at 0.

    tokens, positions (B, T) -> (B, T, V)
    """
    return model(input_ids=tokens, position_ids=positions, use_cache=False).logits


def response_logits(
    model: nn.Module, prompts: Tensor, prompt_mask: Tensor, responses: Tensor, response_mask: Tensor
) -> Tensor:
    """Return the logits from which each response token was chosen. -> (B, R, V)"""
    tokens = torch.cat([prompts, responses], dim=1)
    # The logits of column t predict token t + 1, so those of the prompt's last token come first.
    order, mask = real_first(torch.cat([prompt_mask, response_mask], dim=1))
    width, before = int(mask.sum(1).max()), prompt_mask.sum(1) - 1
    tokens, mask = tokens.gather(1, order)[:, :width], mask[:, :width]
    # The head reads the columns from the first response token of any row on.
    keep = width - int(before.min())
    settings = {"logits_to_keep": keep} if accepts(model, "logits_to_keep") else {}
    logits = _forward(model, tokens, mask, **settings).logits[:, -keep:]
    columns = torch.arange(responses.shape[1], device=tokens.device)
    chosen = (before - (width - keep))[:, None] + columns
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return logits[rows, chosen.clamp(max=keep - 1)]


def response_logprobs(
    model: nn.Module, inputs: ModelInputs, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return log-probs and entropies of the response tokens, each (B, R)."""
    batch = inputs.batch
    if not reads_unpadded(model):
        logits = response_logits(
            model, batch.prompts, batch.prompt_mask, batch.responses, batch.response_mask
        )
        logprobs = token_logprobs(logits, batch.responses, temperature=temperature)
        return logprobs, entropy(logits.detach(), temperature=temperature)
    found = _unpadded_logprobs(
        model, inputs.tokens, _unpadded_inputs(model, inputs), inputs.is_response, temperature
    )
    return found[0][:, inputs.prompt_width :], found[1][:, inputs.prompt_width :]


def text_logprobs(model: nn.Module, batch: SFTBatch) -> Tensor:
    """Return the log-prob of every supervised token after the first column. -> (B, T-1)"""
    if reads_unpadded(model):
        positions = batch.positions if batch.packed else position_ids(batch.mask)
        unpadded = _unpad_texts(model, batch.tokens, batch.mask, positions)
        return _unpadded_logprobs(model, batch.tokens, unpadded, batch.loss_mask, 1.0)[0][:, 1:]
    if batch.packed:
        logits = packed_logits(model, batch.tokens, batch.positions)
    else:
        logits = sequence_logits(model, batch.tokens, batch.mask)
    return token_logprobs(logits[:, :-1], batch.tokens[:, 1:], temperature=1.0)


def response_sums(model: nn.Module, batch: PreferenceBatch) -> Tensor:
    """Return the summed log-prob of each response's tokens, its end token among them. -> (N,)"""
    ends = batch.mask.sum(1, keepdim=True)
    columns = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    wanted = (columns < ends) & (columns >= ends - batch.lengths[:, None])
    text = SFTBatch(
        tokens=batch.tokens,
        mask=batch.mask,
        loss_mask=wanted,
        positions=position_ids(batch.mask),
        packed=False,
    )
    return zero_pads(text_logprobs(model, text), wanted[:, 1:]).sum(1)


def _unpad_texts(model: nn.Module, tokens: Tensor, mask: Tensor, positions: Tensor) -> Unpadded:
    """Return the rows without padding; shared prefixes are computed once, but not under dropout."""
    return unpad(mask, positions, None if _has_noise(model) else tokens)


def _unpadded_inputs(model: nn.Module, inputs: ModelInputs) -> Unpadded | None:
    """Return the rows as the model reads them; None if it reads them padded."""
    return inputs.unpadded(share_prefixes=not _has_noise(model)) if reads_unpadded(model) else None


def _has_noise(model: nn.Module) -> bool:
    """Return whether dropout would make the states of equal prefixes different."""
    return model.training and is_noisy(model.config)


def _unpadded_logprobs(
    model: nn.Module, tokens: Tensor, unpadded: Unpadded, wanted: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return log-probs and entropies of the tokens in `wanted` (B, T) bool, 0 elsewhere, each (B, T)."""
    places = wanted.flatten().nonzero().squeeze(1)
    hidden = unpadded_states(_body(model), tokens, unpadded)
    found = _head_logprobs(
        model.get_output_embeddings(),
        hidden.index_select(0, unpadded.index_before(places)),
        tokens.flatten()[places],
        temperature,
    )
    blank = found[0].new_zeros(tokens.numel())
    return tuple(blank.index_copy(0, places, one).view(tokens.shape) for one in found)


def _head_logprobs(
    head: nn.Linear, hidden: Tensor, tokens: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return log-probs and entropies of the head's logits, which never exist all at once.

    The head is called once and as a module, so that sharded weights are gathered for it, in the backward
    pass too; for this one call its forward returns log-probs instead of logits.
    """
    # An engine may have replaced `forward` on the module itself: it is put back afterwards.
    own = vars(head).get("forward")
    head.forward = lambda states: head_logprobs(
        states, head.weight, head.bias, tokens, temperature=temperature
    )
    try:
        return head(hidden)
    finally:
        del head.forward
        if own is not None:
            head.forward = own


def token_scores(
    model: nn.Module, tokens: Tensor, mask: Tensor, unpadded: Unpadded | None = None
) -> Tensor:
    """Return the scalar head's output at every position, fp32. tokens, mask (B, T) -> (B, T)"""
    if not reads_unpadded(model):
        return _head(model, _states(model, tokens, mask))
    unpadded = unpadded or _unpad_texts(model, tokens, mask, position_ids(mask))
    return unpadded.pad(_head(model, unpadded_states(_body(model), tokens, unpadded)), tokens.shape)


def _body(model: nn.Module) -> nn.Module:
    return getattr(model, model.base_model_prefix)


def _states(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the scalar head's input at every real token of padded rows, (B, T, D)."""
    order, aligned = real_first(mask)
    hidden = _forward(_body(model), tokens.gather(1, order), aligned).last_hidden_state
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return hidden[rows, position_ids(mask).clamp(max=hidden.shape[1] - 1)]


def _last_states(
    model: nn.Module, tokens: Tensor, mask: Tensor, unpadded: Unpadded | None = None
) -> Tensor:
    """Return the scalar head's input at the last real token of each row. -> (B, D)"""
    last = last_true_index(mask)
    rows = torch.arange(len(mask), device=mask.device)
    if not reads_unpadded(model):
        return _states(model, tokens, mask)[rows, last]
    unpadded = unpadded or _unpad_texts(model, tokens, mask, position_ids(mask))
    hidden = unpadded_states(_body(model), tokens, unpadded)
    return hidden.index_select(0, unpadded.index_of(rows * mask.shape[1] + last))


def _head(model: nn.Module, hidden: Tensor) -> Tensor:
    """Apply the scalar head in fp32, also under bfloat16 autocast: 8 bits are too few to order scores.

    hidden (..., D) -> (...)
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return model.score(hidden.float()).squeeze(-1)


def sequence_scores(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return one score per sequence, read at its last real token, (B,). Padding may be on either side."""
    return _head(model, _last_states(model, tokens, mask))


def response_scores(model: nn.Module, inputs: ModelInputs) -> Tensor:
    """Return one score per row, read at its last real token. -> (B,)"""
    return _head(
        model, _last_states(model, inputs.tokens, inputs.mask, _unpadded_inputs(model, inputs))
    )


def response_values(model: nn.Module, inputs: ModelInputs) -> Tensor:
    """Return the value of the state in which each response token was chosen, (B, R): columns [P-1, T-1)."""
    found = token_scores(model, inputs.tokens, inputs.mask, _unpadded_inputs(model, inputs))
    return found[:, inputs.prompt_width - 1 : -1]


def last_hidden(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the scalar head's input at the last real token, fp32. -> (B, D)"""
    return _last_states(model, tokens, mask).float()

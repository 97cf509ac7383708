"""What a network says about given tokens: log-probs of responses and texts, scalars of sequences.

A model that packing.py has prepared reads its rows without their padding, and its head only the
tokens that are asked for. Any other reads them padded; both give the same numbers. What is returned
at pads means nothing.
"""

from functools import cached_property

import torch
from torch import Tensor, nn

from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.logprobs import entropy, head_logprobs, token_logprobs
from rlhf_cli.core.masking import last_true_index, position_ids, real_first
from rlhf_cli.models.loading import accepts, is_noisy
from rlhf_cli.models.packed_rows import Packing, pack
from rlhf_cli.models.packing import enabled, packed_states


class Reading:
    """Prompts with their responses as every network reads them: joined once, packed at most once.

    batch: a Rollout, or anything with its prompts, responses and their masks. tokens, mask (B, P + R)
    """

    def __init__(self, batch):
        self.batch, self.width = batch, batch.prompts.shape[1]
        self.tokens = torch.cat([batch.prompts, batch.responses], dim=1)
        self.mask = torch.cat([batch.prompt_mask, batch.response_mask], dim=1)
        self._packings: dict[bool, Packing] = {}

    def packing(self, *, shared: bool) -> Packing:
        """The same for every network: to pack them waits for the device. shared: equal beginnings once."""
        if shared not in self._packings:
            tokens = self.tokens if shared else None
            self._packings[shared] = pack(self.mask, position_ids(self.mask), tokens)
        return self._packings[shared]

    @cached_property
    def asked(self) -> Tensor:
        """The response tokens among all, (B, P + R) bool."""
        prompts = torch.zeros_like(self.batch.prompt_mask)
        return torch.cat([prompts, self.batch.response_mask], dim=1)


def _forward(model: nn.Module, tokens: Tensor, mask: Tensor, **settings):
    """One forward pass over rows whose real tokens stand at the left.

    Whatever a causal model remembers of a row, padding comes after it, and the model numbers positions as
    it was trained to. tokens, mask (B, T)
    """
    return model(input_ids=tokens, attention_mask=mask.long(), use_cache=False, **settings)


def sequence_logits(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits at every position of rows padded at the right. tokens, mask (B, T) -> (B, T, V)"""
    return _forward(model, tokens, mask).logits


def packed_logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits of packed rows: restarting positions are what keeps the texts of a row apart.

    tokens, positions (B, T) -> (B, T, V)
    """
    return model(input_ids=tokens, position_ids=positions, use_cache=False).logits


def response_logits(
    model: nn.Module, prompts: Tensor, prompt_mask: Tensor, responses: Tensor, response_mask: Tensor
) -> Tensor:
    """The logits that chose each response token. -> (B, R, V)"""
    tokens = torch.cat([prompts, responses], dim=1)
    order, mask = real_first(torch.cat([prompt_mask, response_mask], dim=1))
    width, before = int(mask.sum(1).max()), prompt_mask.sum(1) - 1
    tokens, mask = tokens.gather(1, order)[:, :width], mask[:, :width]
    keep = width - int(before.min())  # the head reads from the first response of any row on
    settings = {"logits_to_keep": keep} if accepts(model, "logits_to_keep") else {}
    logits = _forward(model, tokens, mask, **settings).logits[:, -keep:]
    columns = torch.arange(responses.shape[1], device=tokens.device)
    chosen = (before - (width - keep))[:, None] + columns
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return logits[rows, chosen.clamp(max=keep - 1)]


def response_logprobs(
    model: nn.Module, reading: Reading, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of the response tokens, each (B, R)."""
    batch = reading.batch
    if not enabled(model):
        logits = response_logits(
            model, batch.prompts, batch.prompt_mask, batch.responses, batch.response_mask
        )
        logprobs = token_logprobs(logits, batch.responses, temperature=temperature)
        return logprobs, entropy(logits.detach(), temperature=temperature)
    found = _packed_logprobs(
        model, reading.tokens, _packed(model, reading), reading.asked, temperature
    )
    return found[0][:, reading.width :], found[1][:, reading.width :]


def text_logprobs(model: nn.Module, batch: SFTBatch) -> Tensor:
    """Log-prob of every supervised token after the first column. -> (B, T-1)"""
    if enabled(model):
        positions = batch.positions if batch.packed else position_ids(batch.mask)
        packing = _pack(model, batch.tokens, batch.mask, positions)
        return _packed_logprobs(model, batch.tokens, packing, batch.loss_mask, 1.0)[0][:, 1:]
    if batch.packed:
        logits = packed_logits(model, batch.tokens, batch.positions)
    else:
        logits = sequence_logits(model, batch.tokens, batch.mask)
    return token_logprobs(logits[:, :-1], batch.tokens[:, 1:], temperature=1.0)


def _pack(model: nn.Module, tokens: Tensor, mask: Tensor, positions: Tensor) -> Packing:
    """Equal beginnings are read once, unless dropout would have made them different."""
    return pack(mask, positions, None if _drops(model) else tokens)


def _packed(model: nn.Module, reading: Reading) -> Packing | None:
    """How the model reads the rows; None where it reads them padded."""
    return reading.packing(shared=not _drops(model)) if enabled(model) else None


def _drops(model: nn.Module) -> bool:
    return model.training and is_noisy(model.config)


def _packed_logprobs(
    model: nn.Module, tokens: Tensor, packing: Packing, asked: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of the tokens asked for, 0 elsewhere, each (B, T)."""
    places = asked.flatten().nonzero().squeeze(1)
    hidden = packed_states(_body(model), tokens, packing)
    found = _head_logprobs(
        model.get_output_embeddings(),
        hidden.index_select(0, packing.before(places)),
        tokens.flatten()[places],
        temperature,
    )
    blank = found[0].new_zeros(tokens.numel())
    return tuple(blank.index_copy(0, places, one).view(tokens.shape) for one in found)


def _head_logprobs(
    head: nn.Linear, hidden: Tensor, tokens: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The head is called once, as a module: sharded weights are gathered for it, and again backward.

    For this call it tells log-probs where it would tell logits, which need not exist all at once.
    """
    own = vars(head).get("forward")  # somebody else's, if there is one
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
    model: nn.Module, tokens: Tensor, mask: Tensor, packing: Packing | None = None
) -> Tensor:
    """The scalar head at every position, fp32. tokens, mask (B, T) -> (B, T)"""
    if not enabled(model):
        return _head(model, _states(model, tokens, mask))
    packing = packing or _pack(model, tokens, mask, position_ids(mask))
    return packing.unpack(_head(model, packed_states(_body(model), tokens, packing)), tokens.shape)


def _body(model: nn.Module) -> nn.Module:
    return getattr(model, model.base_model_prefix)


def _states(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """What the scalar head reads at every real token of padded rows. tokens, mask (B, T) -> (B, T, D)"""
    order, aligned = real_first(mask)
    hidden = _forward(_body(model), tokens.gather(1, order), aligned).last_hidden_state
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return hidden[rows, position_ids(mask).clamp(max=hidden.shape[1] - 1)]


def _last_states(
    model: nn.Module, tokens: Tensor, mask: Tensor, packing: Packing | None = None
) -> Tensor:
    """What the scalar head reads at the last real token of each row. -> (B, D)"""
    last = last_true_index(mask)
    rows = torch.arange(len(mask), device=mask.device)
    if not enabled(model):
        return _states(model, tokens, mask)[rows, last]
    packing = packing or _pack(model, tokens, mask, position_ids(mask))
    hidden = packed_states(_body(model), tokens, packing)
    return hidden.index_select(0, packing.at(rows * mask.shape[1] + last))


def _head(model: nn.Module, hidden: Tensor) -> Tensor:
    """The scalar head in fp32 also under bfloat16 autocast: 8 bits are too few to tell scores apart.

    hidden (..., D) -> (...)
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return model.score(hidden.float()).squeeze(-1)


def sequence_scores(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """One score per sequence, read at its last real token, wherever the padding lies. -> (B,)"""
    return _head(model, _last_states(model, tokens, mask))


def response_scores(model: nn.Module, reading: Reading) -> Tensor:
    """One score a row, read at its last real token. -> (B,)"""
    return _head(model, _last_states(model, reading.tokens, reading.mask, _packed(model, reading)))


def response_values(model: nn.Module, reading: Reading) -> Tensor:
    """The value of the state each response token was chosen in: the slice [P-1, T-1). -> (B, R)"""
    found = token_scores(model, reading.tokens, reading.mask, _packed(model, reading))
    return found[:, reading.width - 1 : -1]


def last_hidden(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """The scalar head's input at the last real token, fp32. -> (B, D)"""
    return _last_states(model, tokens, mask).float()

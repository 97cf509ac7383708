"""What a network says about given tokens: log-probs of responses, scalars of sequences."""

import torch
from torch import Tensor, nn

from rlhf_cli.core.logprobs import entropy, token_logprobs
from rlhf_cli.core.masking import last_true_index, position_ids
from rlhf_cli.models.loading import accepts


def _inputs(model: nn.Module, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Positions count real tokens only, so left padding shifts nothing."""
    inputs = {"input_ids": tokens, "attention_mask": mask.long()}
    if accepts(model, "position_ids"):
        inputs["position_ids"] = position_ids(mask)
    return inputs


def sequence_logits(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits at every position. tokens, mask (B, T) -> (B, T, V)"""
    return model(**_inputs(model, tokens, mask), use_cache=False).logits


def packed_logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits of packed rows: restarting positions are what keeps the texts of a row apart.

    tokens, positions (B, T) -> (B, T, V)
    """
    return model(input_ids=tokens, position_ids=positions, use_cache=False).logits


def response_logits(
    model: nn.Module, prompts: Tensor, prompt_mask: Tensor, responses: Tensor, response_mask: Tensor
) -> Tensor:
    """The logits that chose each response token: the slice [P-1, T-1). -> (B, R, V)"""
    tokens = torch.cat([prompts, responses], dim=1)
    mask = torch.cat([prompt_mask, response_mask], dim=1)
    inputs = _inputs(model, tokens, mask)
    width = responses.shape[1] + 1
    if accepts(model, "logits_to_keep"):
        return model(**inputs, use_cache=False, logits_to_keep=width).logits[:, :-1]
    return model(**inputs, use_cache=False).logits[:, -width:-1]


def response_logprobs(model: nn.Module, batch, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of the response tokens of a Rollout or alike, each (B, R)."""
    logits = response_logits(
        model, batch.prompts, batch.prompt_mask, batch.responses, batch.response_mask
    )
    logprobs = token_logprobs(logits, batch.responses, temperature=temperature)
    return logprobs, entropy(logits.detach(), temperature=temperature)


def token_scores(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """The scalar head at every position, fp32. tokens, mask (B, T) -> (B, T)"""
    return _head(model, _states(model, tokens, mask))


def _states(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """What the scalar head reads at every position. tokens, mask (B, T) -> (B, T, D)"""
    body = getattr(model, model.base_model_prefix)
    return body(**_inputs(body, tokens, mask), use_cache=False).last_hidden_state


def _head(model: nn.Module, hidden: Tensor) -> Tensor:
    """The scalar head in fp32 also under bfloat16 autocast: 8 bits are too few to tell scores apart.

    hidden (B, T, D) -> (B, T)
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return model.score(hidden.float()).squeeze(-1)


def sequence_scores(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """One score per sequence, read at its last real token, wherever the padding lies. -> (B,)"""
    scores = token_scores(model, tokens, mask)
    return scores.gather(1, last_true_index(mask)[:, None]).squeeze(1)


def response_values(model: nn.Module, batch) -> Tensor:
    """The value of the state each response token was chosen in: the slice [P-1, T-1). -> (B, R)"""
    tokens = torch.cat([batch.prompts, batch.responses], dim=1)
    mask = torch.cat([batch.prompt_mask, batch.response_mask], dim=1)
    return token_scores(model, tokens, mask)[:, batch.prompts.shape[1] - 1 : -1]


def last_hidden(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """The scalar head's input at the last real token, fp32. -> (B, D)"""
    hidden = _states(model, tokens, mask)
    return hidden[torch.arange(len(hidden), device=hidden.device), last_true_index(mask)].float()

"""Sampling of responses from a model's own distribution, of which only the temperature is changed.

There is no top-k, no top-p and no repetition penalty: what is sampled is what `core.logprobs` scores. The
random numbers are an argument, one per row and column, so a response depends on no other row.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from rlhf_cli.config.errors import UserError
from rlhf_cli.core.logprobs import entropy, token_logprobs
from rlhf_cli.models.capabilities import decoder_for
from rlhf_cli.models.generation.cuda_graphs import CUDAGraphDecoder, can_capture
from rlhf_cli.models.generation.decoding import Decoder, FastDecoder, PlainDecoder, in_lock_step
from rlhf_cli.models.generation.onednn_linear import prepacked

BLOCK = 64  # tokens of the vocabulary whose sum is one step of the coarse distribution function
LEAST = -1e4  # finite stand-in for -inf: its exp is 0, and 0 times it is 0, not nan
# Tokens between two checks for finished rows, by device: a check waits for the device.
CHECK_EVERY = {"cuda": 8}
# Largest mean distance, in nats per token, of the sampler's log-probs from those of a forward pass.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


@dataclass(slots=True, frozen=True, kw_only=True)
class SamplingParams:
    """How responses are sampled. temperature: 0 takes the likeliest token. end_ids: tokens that end one.

    copies: responses per prompt; the rows of one prompt are consecutive, and it is read once for all.
    reference: use the plain path, to compare with. cuda_graphs: capture the steps on a CUDA device.
    """

    max_new_tokens: int
    temperature: float
    end_ids: list[int]
    pad_id: int
    copies: int = 1
    reference: bool = False
    cuda_graphs: bool = False


@dataclass(slots=True, kw_only=True)
class Samples:
    """Sampled responses (B, R), right-padded, with their mask; finished (B,): ended with an end token.

    logprobs (B, R), float32: of the tokens, at the sampling temperature. entropies (B, R), float32: of the
    distributions they were sampled from. Both are 0 after the end.
    """

    responses: Tensor
    mask: Tensor
    finished: Tensor
    logprobs: Tensor
    entropies: Tensor


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    params: SamplingParams,
    *,
    keep_going: Callable[[bool], bool] = bool,
) -> Samples:
    """Continue left-padded prompts until an end token or `params.max_new_tokens` tokens.

    A finished row leaves the batch, so a long response does not delay the short ones.
    keep_going(running): whether to take another token. Processes that must call the model equally often
    answer True while any of them is running, and each asks after every token.
    prompts, prompt_mask (B / params.copies, P), uniforms (B, max_new_tokens)
    """
    in_step = in_lock_step(model)
    sample_next = _sample_by_reference if params.reference else sample_and_score
    # Sharded weights are not there to be copied, and one row gains nothing.
    plain_layers = params.reference or in_step or len(uniforms) == 1
    layers = nullcontext() if plain_layers else prepacked(model)
    every = 1 if in_step else CHECK_EVERY.get(prompts.device.type, 1)
    buffer = SampleBuffer(uniforms, prompts.device, params)
    with layers:
        make_decoder = decoder_class(
            model,
            prompts.device,
            reference=params.reference,
            cuda_graphs=params.cuda_graphs and not in_step,
        )
        num_columns = params.max_new_tokens
        decoder = make_decoder(
            model, prompts, prompt_mask, copies=params.copies, max_new_tokens=num_columns
        )
        for column in range(num_columns):
            rows = decoder.rows
            uniform = buffer.uniforms[rows, column]
            tokens, *scored = sample_next(decoder.logits, uniform, temperature=params.temperature)
            running = buffer.write(rows, column, tokens, *scored)
            if column + 1 == num_columns:
                break
            if (column + 1) % every == 0:
                if not keep_going(bool(running.any())):
                    break
                tokens = tokens[decoder.keep(running)]
            decoder.feed(tokens)
    return buffer.samples()


def decoder_class(
    model: nn.Module, device: torch.device, *, reference: bool, cuda_graphs: bool
) -> Callable[..., Decoder]:
    """Return the fastest decoder that is right for the model; with `reference` the plain one."""
    found = decoder_for(model)
    if found is not FastDecoder:
        return found
    if reference:
        return PlainDecoder
    captured = cuda_graphs and device.type == "cuda" and can_capture(model)
    return CUDAGraphDecoder if captured else FastDecoder


class SampleBuffer:
    """What has been sampled so far, in the caller's order of rows."""

    def __init__(self, uniforms: Tensor, device: torch.device, params: SamplingParams):
        # Double precision where the device has it.
        self.uniforms = uniforms.to(
            device, torch.float32 if device.type == "mps" else torch.float64
        )
        size = uniforms.shape
        self.pad_id, self.ends = params.pad_id, torch.tensor(params.end_ids, device=device)
        self.responses = torch.full(size, self.pad_id, device=device)
        self.logprobs, self.entropies = torch.zeros(2, *size, device=device)
        self.lengths = torch.zeros(size[0], dtype=torch.long, device=device)
        self.finished = torch.zeros(size[0], dtype=torch.bool, device=device)

    def write(
        self, rows: Tensor, column: int, tokens: Tensor, logprobs: Tensor, entropies: Tensor
    ) -> Tensor:
        """Write one column of `rows`; return which of them are still running, (n,) bool."""
        # Between two checks a row that has finished is still in the batch: its tokens are not kept.
        running = ~self.finished[rows]
        self.responses[rows, column] = tokens.masked_fill(~running, self.pad_id)
        self.logprobs[rows, column] = logprobs.masked_fill(~running, 0)
        self.entropies[rows, column] = entropies.masked_fill(~running, 0)
        self.lengths[rows] += running
        self.finished[rows] |= torch.isin(tokens, self.ends) & running
        return ~self.finished[rows]

    def samples(self) -> Samples:
        """Return what was sampled, as wide as the longest response."""
        width = int(self.lengths.max())
        mask = torch.arange(width, device=self.lengths.device) < self.lengths[:, None]
        return Samples(
            responses=self.responses[:, :width],
            mask=mask,
            finished=self.finished,
            logprobs=self.logprobs[:, :width],
            entropies=self.entropies[:, :width],
        )


def sample_and_score(
    logits: Tensor, uniform: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return one token per row as `sample_token` does, its log-prob and the entropy of its distribution.

    Inverts in two levels, first the token's block and then its position there, so that only one block per
    row is summed in double precision. At temperature 0 log-probs and entropies are 0.
    logits (B, V), uniform (B,) -> tokens (B,), logprobs (B,) and entropies (B,) in float32, nats
    """
    if temperature == 0:
        certain = logits.new_zeros(len(logits), dtype=torch.float32)
        return logits.argmax(-1), certain, certain
    wide = logits.float() / temperature
    below = wide.sub_(wide.amax(-1, keepdim=True)).clamp_(min=LEAST)
    weights = below.exp()
    blocks = pad(weights, (0, -weights.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    coarse = blocks.sum(-1).to(uniform.dtype).cumsum(-1)
    block, share = _invert(coarse, uniform[:, None])
    fine = blocks.gather(1, block[..., None].expand(-1, 1, BLOCK)).squeeze(1)
    place, _ = _invert(fine.to(uniform.dtype).cumsum(-1), share)
    tokens = (block * BLOCK + place).clamp_(max=logits.shape[-1] - 1)
    # With m the largest logit and Z = sum exp(x - m): log p(i) = (x_i - m) - log Z, and the entropy
    # is log Z - sum p (x - m).
    mass = coarse[:, -1]
    logprobs = below.gather(1, tokens).squeeze(1) - mass.log()
    entropies = mass.log() - torch.linalg.vecdot(weights, below) / mass
    return tokens.squeeze(1), logprobs.float(), entropies.float()


def _invert(cumulative: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return the step in which `cumulative` passes this share of its total, and the share within that step.

    cumulative (B, n), share (B, 1) -> index (B, 1), share within (B, 1)
    """
    total = cumulative[:, -1:]
    # Strictly below the total, so that a last step without weight is never chosen.
    level = torch.minimum(share * total, total * (1 - torch.finfo(total.dtype).eps))
    index = torch.searchsorted(cumulative, level, right=True).clamp_(max=cumulative.shape[-1] - 1)
    below = cumulative.gather(1, (index - 1).clamp_(min=0)).masked_fill(index == 0, 0)
    return index, (level - below) / (cumulative.gather(1, index) - below)


def _sample_by_reference(
    logits: Tensor, uniform: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `sample_and_score` does, with the functions of core that score a forward pass."""
    tokens = sample_token(logits, uniform, temperature=temperature)
    if temperature == 0:
        certain = logits.new_zeros(len(logits), dtype=torch.float32)
        return tokens, certain, certain
    one = logits[:, None]
    logprobs = token_logprobs(one, tokens[:, None], temperature=temperature)
    return tokens, logprobs.float().squeeze(1), entropy(one, temperature=temperature).squeeze(1)


def sample_token(logits: Tensor, uniform: Tensor, *, temperature: float) -> Tensor:
    """Return one token per row, drawn from softmax(logits / temperature).

    Temperature 0 takes the likeliest token. logits (B, V), uniform (B,) in [0, 1) -> (B,)
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).to(uniform.dtype).cumsum(-1)
    level = uniform[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, level, right=True)
    return chosen.squeeze(1).clamp_(max=logits.shape[-1] - 1)


def require_close_logprobs(gap: float, dtype: torch.dtype) -> None:
    """Raise UserError if the sampler's distribution is not the one that is scored.

    gap: mean distance of its log-probs from those of a forward pass, nats per token.
    """
    if not gap <= TOLERANCE[dtype]:
        raise UserError(
            f"the sampler's log-probs are {gap:.2g} nats per token off those of a forward pass, in "
            f"{str(dtype).removeprefix('torch.')} {TOLERANCE[dtype]:g} at most: what is sampled is not "
            "what is scored; compare with runtime.reference_implementation=true, and report this model"
        )

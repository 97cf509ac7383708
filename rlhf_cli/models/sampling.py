"""Sampling responses: temperature is the only thing that shapes the distribution.

No top-k, no top-p, no repetition penalty: what is sampled is what `core.logprobs` scores. The random
numbers are handed in, one for every row and column, so a response depends on no other row.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf_cli.config.errors import UserError
from rlhf_cli.core.logprobs import entropy, token_logprobs
from rlhf_cli.models.abilities import decoder_for
from rlhf_cli.models.decoding import Decoder, FastDecoder, PlainDecoder, in_lock_step
from rlhf_cli.models.drawing import draw, draw_scored
from rlhf_cli.models.graphed import GraphedDecoder, can_record
from rlhf_cli.models.prepacked import prepacked

LOOK_EVERY = {
    "cuda": 8
}  # tokens between two looks at who has finished: a look waits for the device

# largest mean distance, in nats per token, of the sampler's log-probs from those of a forward pass
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


@dataclass(slots=True, frozen=True, kw_only=True)
class SamplingParams:
    """How responses are sampled. temperature: 0 takes the likeliest token. end_ids: a response ends there.

    reference: take the plain path, to compare with. cuda_graphs: on a CUDA device, record the steps.
    """

    max_new_tokens: int
    temperature: float
    end_ids: list[int]
    pad_id: int
    reference: bool = False
    cuda_graphs: bool = False


@dataclass(slots=True, kw_only=True)
class Samples:
    """responses (B, R) right-padded, mask (B, R), finished (B,): ended by an end token.

    logprobs, entropies (B, R), float32: of the tokens when they were drawn and of what they were drawn
    from, at the temperature of the drawing; 0 after the end.
    """

    responses: Tensor
    mask: Tensor
    finished: Tensor
    logprobs: Tensor
    entropies: Tensor


def require_agreement(gap: float, dtype: torch.dtype) -> None:
    """Refuse to go on with a sampler that draws from something else than what is scored.

    gap: mean distance of its log-probs from those of a forward pass, nats per token.
    """
    if not gap <= TOLERANCE[dtype]:
        raise UserError(
            f"the sampler's log-probs are {gap:.2g} nats per token off those of a forward pass, in "
            f"{str(dtype).removeprefix('torch.')} {TOLERANCE[dtype]:g} at most: what is sampled is not "
            "what is scored; compare with runtime.reference_path=true, and report this model"
        )


def _on_device(uniforms: Tensor, device: torch.device) -> Tensor:
    """Double precision where the device has it."""
    return uniforms.to(device, torch.float32 if device.type == "mps" else torch.float64)


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    params: SamplingParams,
    *,
    copies: int = 1,
    keep_going: Callable[[bool], bool] = bool,
) -> Samples:
    """Continue left-padded prompts until an end token or `params.max_new_tokens` tokens.

    A finished row leaves the batch, so a long response does not delay the short ones.
    copies: responses per prompt; the rows of one prompt are consecutive, and it is read once for all.
    keep_going(running): whether to take another token. Processes that must call the model equally often
    answer True while any of them is running, and each asks after every token.
    prompts, prompt_mask (B / copies, P), uniforms (B, max_new_tokens)
    """
    in_step = in_lock_step(model)
    draws = _draw_plainly if params.reference else draw_scored
    plainly = params.reference or in_step or len(uniforms) == 1
    packing = nullcontext() if plainly else prepacked(model)
    every = 1 if in_step else LOOK_EVERY.get(prompts.device.type, 1)
    said = _Said(_on_device(uniforms, prompts.device), params)
    with packing:
        recordable = params.cuda_graphs and not in_step
        way = _way(model, prompts.device, reference=params.reference, cuda_graphs=recordable)
        num_columns = params.max_new_tokens
        decoder = way(model, prompts, prompt_mask, copies=copies, max_new_tokens=num_columns)
        for column in range(num_columns):
            rows = decoder.rows
            uniform = said.uniforms[rows, column]
            tokens, *told = draws(decoder.logits, uniform, temperature=params.temperature)
            running = said.write(rows, column, tokens, *told)
            if column + 1 == num_columns:
                break
            if (column + 1) % every == 0:
                if not keep_going(bool(running.any())):
                    break
                tokens = tokens[decoder.keep(running)]
            decoder.feed(tokens)
    return said.samples()


def _way(
    model: nn.Module, device: torch.device, *, reference: bool, cuda_graphs: bool
) -> Callable[..., Decoder]:
    """The fastest decoder that is right for the model, or the plain one to compare it with."""
    found = decoder_for(model)
    if found is not FastDecoder:
        return found
    if reference:
        return PlainDecoder
    recorded = cuda_graphs and device.type == "cuda" and can_record(model)
    return GraphedDecoder if recorded else FastDecoder


def _draw_plainly(
    logits: Tensor, uniform: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    tokens = draw(logits, uniform, temperature=temperature)
    if temperature == 0:
        certain = logits.new_zeros(len(logits), dtype=torch.float32)
        return tokens, certain, certain
    one = logits[:, None]
    logprobs = token_logprobs(one, tokens[:, None], temperature=temperature)
    return tokens, logprobs.float().squeeze(1), entropy(one, temperature=temperature).squeeze(1)


class _Said:
    """What has been drawn so far, in the caller's order of rows."""

    def __init__(self, uniforms: Tensor, params: SamplingParams):
        self.uniforms, size, place = uniforms, uniforms.shape, uniforms.device
        self.pad_id, self.ends = params.pad_id, torch.tensor(params.end_ids, device=place)
        self.responses = torch.full(size, self.pad_id, device=place)
        self.logprobs, self.entropies = torch.zeros(2, *size, device=place)
        self.lengths = torch.zeros(size[0], dtype=torch.long, device=place)
        self.finished = torch.zeros(size[0], dtype=torch.bool, device=place)

    def write(
        self, rows: Tensor, column: int, tokens: Tensor, logprobs: Tensor, entropies: Tensor
    ) -> Tensor:
        """One column of the rows that were running. Returns those that still are, (n,) bool."""
        running = ~self.finished[rows]
        self.responses[rows, column] = tokens.masked_fill(~running, self.pad_id)
        self.logprobs[rows, column] = logprobs.masked_fill(~running, 0)
        self.entropies[rows, column] = entropies.masked_fill(~running, 0)
        self.lengths[rows] += running
        self.finished[rows] |= torch.isin(tokens, self.ends) & running
        return ~self.finished[rows]

    def samples(self) -> Samples:
        """As wide as the longest response."""
        width = int(self.lengths.max())
        mask = torch.arange(width, device=self.lengths.device) < self.lengths[:, None]
        return Samples(
            responses=self.responses[:, :width],
            mask=mask,
            finished=self.finished,
            logprobs=self.logprobs[:, :width],
            entropies=self.entropies[:, :width],
        )

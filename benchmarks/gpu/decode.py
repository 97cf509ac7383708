"""Correctness of decoding with CUDA graphs: tokens of `generate`, plain, fast and captured."""

import time
import warnings

import torch
from common import LARGE, SMALL, Found, llama, rows, section
from torch import nn

from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.generation import cuda_graphs, decoding, sampling
from rlhf_cli.models.generation.sampling import Samples, SamplingParams, sample
from rlhf_cli.models.unpadding.attention import enable_unpadding

DECODERS = {
    "plain": decoding.PlainDecoder,
    "fast": decoding.FastDecoder,
    "recorded": cuda_graphs.CUDAGraphDecoder,
}


class Recordings:
    """Capture steps, and count the captured and the failed ones; on a CPU a step is only called."""

    def __init__(self, place: torch.device):
        self.place, self.made, self.refused, self.seconds = place, 0, 0, 0.0

    def __call__(self, step):
        began = time.perf_counter()
        run = cuda_graphs.captured(step) if self.place.type == "cuda" else step
        self.seconds += time.perf_counter() - began
        self.made += 1
        self.refused += run is step and self.place.type == "cuda"
        return run


def sample_with(
    way: str, recordings: Recordings, model: nn.Module, tokens, mask, drawn, **settings
) -> Samples:
    """Return the samples of one decoder."""
    params = SamplingParams(max_new_tokens=drawn.shape[1], pad_id=0, **settings)

    def decoder(*given, **more):
        extra = {"capture": recordings} if way == "recorded" else {}
        return DECODERS[way](*given, **more, **extra)

    own, sampling.decoder_class = sampling.decoder_class, lambda *_, **__: decoder
    try:
        return sample(model, tokens, mask, drawn, params)
    finally:
        sampling.decoder_class = own


def agreement(one: Samples, other: Samples) -> dict[str, float]:
    width = min(one.mask.shape[1], other.mask.shape[1])
    real = (one.mask | other.mask)[:, :width]
    same = (one.responses[:, :width] == other.responses[:, :width]) & real
    gaps = (one.logprobs[:, :width] - other.logprobs[:, :width])[same]
    return {
        "tokens_equal": float(same.sum() / real.sum()),
        "logprob_max": float(gaps.abs().max()),
        "logprob_mean": float(gaps.abs().mean()),
    }


def greedy(found: Found, model: nn.Module, tokens, mask, width: int, place) -> bool:
    """Compare greedy decoding in float32 with transformers, token by token."""
    expected = model.generate(
        input_ids=tokens,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=width,
        eos_token_id=list(range(1, 9)),
        pad_token_id=0,
    )[:, tokens.shape[1] :]
    fine, drawn = True, uniforms(len(tokens), width, 0)
    for way in DECODERS:
        recordings = Recordings(place)
        ours = sample_with(
            way, recordings, model, tokens, mask, drawn, end_ids=[*range(1, 9)], temperature=0
        )
        same = ours.responses.shape == expected.shape and torch.equal(ours.responses, expected)
        found[f"greedy float32, {way}"] = {"equal": same, "graphs": recordings.made}
        found[f"recordings refused, {way}"] = recordings.refused
        fine = fine and same and not recordings.refused
    return fine


def same_samples(found: Found, model: nn.Module, tokens, mask, width: int, place, dtype) -> bool:
    """Compare samples of the same random numbers, two per prompt, rows ending one by one."""
    drawn, found_by = uniforms(2 * len(tokens), width, 0), {}
    ends = list(range(1, model.config.vocab_size // 32))
    with torch.autocast(place.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        for way in DECODERS:
            found_by[way] = sample_with(
                way,
                Recordings(place),
                model,
                tokens,
                mask,
                drawn,
                end_ids=ends,
                temperature=1.0,
                copies=2,
            )
    fine = True
    for way in ("fast", "recorded"):
        same = agreement(found_by[way], found_by["plain"])
        found[f"sampled {dtype}, {way}"] = same
        exact = dtype is torch.float32
        fine = fine and same["tokens_equal"] > (0.99 if exact else 0.5)
        fine = fine and same["logprob_max"] < (1e-2 if exact else 1.0)
    return fine


def refusal(place: torch.device) -> bool:
    """Try to capture a step that waits for the device; later steps are not captured either."""
    numbers = torch.arange(1000, device=place)

    def step() -> None:
        assert int(numbers.sum()) == 499500

    run = cuda_graphs.captured(step)
    run()
    return run is step and int((numbers * 2).sum()) == 999000


@torch.no_grad()
def parity(found: Found, place: torch.device, rehearse: bool) -> None:
    warnings.simplefilter("always")
    shape = SMALL if rehearse else LARGE | {"num_hidden_layers": 6}
    width = 24 if rehearse else 96
    tokens, mask = (
        x.to(place) for x in rows(22, 20 if rehearse else 200, shape["vocab_size"], left=True)
    )
    model = enable_unpadding(llama(shape, place=place, sharpness=4.0))
    found["can_capture"] = cuda_graphs.can_capture(model)
    fine = [greedy(found, model, tokens, mask, width, place)]
    model = enable_unpadding(llama(shape, place=place))
    for dtype in (torch.float32, torch.bfloat16):
        fine.append(same_samples(found, model, tokens, mask, width, place, dtype))
    if place.type == "cuda":
        found["what cannot be recorded goes on plainly"] = refusal(place)
        fine.append(found.values["what cannot be recorded goes on plainly"])
    found["ok"] = all(fine)


if __name__ == "__main__":
    section(parity)

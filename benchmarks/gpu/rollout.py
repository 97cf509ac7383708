"""Speed of rollouts, compared with the limit of the memory bandwidth: 64 prompts, equal lengths.

A step reads every weight once, and the cache of every row up to its current length.
"""

import json
import warnings
from pathlib import Path

import torch
from common import LARGE, SMALL, Found, finish, llama, peak_gib, reset_peak, rows, seconds, section
from decode import Recordings, sample_with
from torch import nn

from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.unpadding.attention import enable_unpadding


def bytes_per_step(model: nn.Module, batch: int, prompt: int, new: int) -> float:
    """Return the bytes of weights and cache per step, averaged over a rollout of equal lengths."""
    config = model.config
    weights = sum(p.nbytes for p in model.parameters())
    width = config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    column = 2 * config.num_hidden_layers * width
    return weights + batch * column * (prompt + new / 2)


def syncs_per_token(run, new: int) -> float:
    """Return how often per token the host waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught) / new


def peers(model: nn.Module, tokens, mask, new: int) -> dict:
    """Return calls of `generate` with its caches; the last one compiles at its first call."""

    def generate(**settings):
        return lambda: model.generate(
            input_ids=tokens,
            attention_mask=mask.long(),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            max_new_tokens=new,
            min_new_tokens=new,
            pad_token_id=0,
            **settings,
        )

    return {
        "generate, dynamic cache": generate(),
        "generate, static cache": generate(cache_implementation="static", disable_compile=True),
        "generate, static cache, compiled": generate(cache_implementation="static"),
    }


@torch.no_grad()
def speeds(found: Found, place: torch.device, rehearse: bool) -> None:
    shape = SMALL if rehearse else LARGE
    batch, prompt, new = (4, 8, 12) if rehearse else (64, 128, 256)
    model = enable_unpadding(llama(shape, dtype=torch.bfloat16, place=place))
    tokens, mask = (
        x.to(place) for x in rows(batch, prompt, shape["vocab_size"], left=True, equal=True)
    )
    drawn, settings = uniforms(batch, new, 0), {"end_ids": [shape["vocab_size"]], "temperature": 1}
    recordings = Recordings(place)

    def ours(way: str):
        return lambda: sample_with(way, recordings, model, tokens, mask, drawn, **settings)

    moved = bytes_per_step(model, batch, prompt, new)
    limits = Path(found.place).with_name("limits.json")
    bandwidth = json.loads(limits.read_text())["copy_gb_per_s"] if limits.is_file() else None
    found["gb_a_step"] = moved / 1e9
    if bandwidth:
        found["limit_tokens_per_s"] = batch * bandwidth * 1e9 / moved
    runs = {"ours, fast": ours("fast"), "ours, recorded": ours("recorded")}
    for name, run in (runs | peers(model, tokens, mask, new)).items():
        if rehearse and "compiled" in name:
            continue
        finish(place)
        reset_peak(place)
        spent = seconds(run, place, rounds=2 if name in runs else 1)
        one = {"tokens_per_s": batch * new / spent, "seconds": spent, "peak_gib": peak_gib(place)}
        if bandwidth:
            one["share_of_limit"] = one["tokens_per_s"] / found.values["limit_tokens_per_s"]
        if name in runs and place.type == "cuda":
            one["host_syncs_per_token"] = syncs_per_token(run, new)
        found[name] = one
    rollouts = 4 if place.type == "cuda" else 3
    found["graphs a rollout"] = recordings.made / rollouts
    found["seconds of recording a rollout"] = recordings.seconds / rollouts


if __name__ == "__main__":
    section(speeds)

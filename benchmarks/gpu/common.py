"""Code that the sections share: the device, results that survive a time limit, models, clocks."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
sys.path[:0] = [str(ROOT), str(BENCHMARKS)]

LARGE = {
    "hidden_size": 1280,
    "intermediate_size": 3456,
    "num_hidden_layers": 24,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
SMALL = LARGE | {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


class Found:
    """Results by name, written at once, so that a section that is stopped keeps them."""

    def __init__(self, place: Path):
        self.place, self.values = place, {}

    def __setitem__(self, name: str, value: object) -> None:
        self.values[name] = value
        self.place.write_text(json.dumps(self.values, indent=1) + "\n")


def section(body: Callable[[Found, torch.device, bool], None]) -> None:
    """Call body(found, device, rehearse) with the options of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    place = torch.device("cpu" if options.rehearse else "cuda")
    body(Found(options.into), place, options.rehearse)


def llama(shape: dict, *, dtype=torch.float32, place="cpu", sharpness: float = 1.0) -> nn.Module:
    """Return a random Llama; sharpness > 1 makes its predictions less uniform."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        **shape,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.device(place):
        model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(sharpness)
    return model.to(dtype)


def rows(count: int, longest: int, vocab: int, *, left: bool, equal: bool = False):
    """Return random texts with their mask (count, longest), one of them of full length."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(max(longest // 4, 1), longest + 1, (count,), generator=generator)
    lengths[0] = longest
    if equal:
        lengths[:] = longest
    column = torch.arange(longest)
    mask = column < lengths[:, None]
    mask = mask.flip(1) if left else mask
    tokens = torch.randint(2, vocab, (count, longest), generator=generator)
    return tokens.masked_fill(~mask, 0), mask


def finish(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], place: torch.device, *, rounds: int = 3) -> float:
    """Return the median seconds of some rounds after a warm-up round."""
    spent = []
    for _ in range(rounds + 1):
        finish(place)
        began = time.perf_counter()
        work()
        finish(place)
        spent.append(time.perf_counter() - began)
    return sorted(spent[1:])[rounds // 2]


def reset_peak(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(place: torch.device) -> float | None:
    """Return the peak memory of the device since reset_peak, None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if place.type == "cuda" else None

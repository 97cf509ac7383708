"""What this machine can do at best, so that a run can be told what share of it was used."""

import time
from functools import cache

import torch

SMALLEST, LARGEST = 128, 8192  # rows and columns of the products tried
LONG = 0.01  # seconds of one product from which larger ones are not tried


@cache
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest square matrix product that a tenth of a second finds, on all threads of
    this process. Its numbers come from a generator of its own: nothing else draws differently."""
    generator = torch.Generator(device).manual_seed(0)
    best, seconds, size = 0.0, 0.0, SMALLEST
    while size <= LARGEST and seconds < LONG:
        x = torch.randn(size, size, generator=generator, device=device, dtype=dtype)
        seconds = min(_seconds(x) for _ in range(3))
        best, size = max(best, 2 * size**3 / seconds), 2 * size
    return best


def _seconds(x: torch.Tensor) -> float:
    """Of x times x; asking for a number waits for the device."""
    before = time.perf_counter()
    float((x @ x)[0, 0])
    return time.perf_counter() - before

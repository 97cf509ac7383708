"""The highest FLOP/s of this machine, as measured, so that a run can report which share it used."""

import time
from functools import cache

import torch

SMALLEST, LARGEST = 128, 8192  # rows and columns of the products measured
ENOUGH = 0.01  # seconds of one product from which larger ones are not measured


@cache
def measured_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of the fastest square matrix product found in a tenth of a second.

    On all threads of this process; with a generator of its own, so that no other random number changes.
    """
    generator = torch.Generator(device).manual_seed(0)
    best, seconds, size = 0.0, 0.0, SMALLEST
    while size <= LARGEST and seconds < ENOUGH:
        x = torch.randn(size, size, generator=generator, device=device, dtype=dtype)
        seconds = min(_seconds(x) for _ in range(3))
        best, size = max(best, 2 * size**3 / seconds), 2 * size
    return best


def _seconds(x: torch.Tensor) -> float:
    """Return the seconds of x @ x; float() waits for the device."""
    before = time.perf_counter()
    float((x @ x)[0, 0])
    return time.perf_counter() - before

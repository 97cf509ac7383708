"""The limits of this device: its matmul rate and its copy bandwidth, measured."""

import torch
from common import Found, seconds, section


def limits(found: Found, place: torch.device, rehearse: bool) -> None:
    size = 512 if rehearse else 8192
    a, b = (torch.randn(size, size, device=place, dtype=torch.bfloat16) for _ in range(2))
    times = 1 if rehearse else 20
    spent = seconds(lambda: [a @ b for _ in range(times)], place)
    found["matmul_tflops"] = 2 * size**3 * times / spent / 1e12
    numbers = 2**22 if rehearse else 2**30
    x, y = (torch.zeros(numbers, device=place, dtype=torch.bfloat16) for _ in range(2))
    spent = seconds(lambda: [y.copy_(x) for _ in range(times)], place)
    found["copy_gb_per_s"] = 2 * x.nbytes * times / spent / 1e9  # read and written


if __name__ == "__main__":
    section(limits)

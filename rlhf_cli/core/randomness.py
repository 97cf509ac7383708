"""Random numbers without state: each is a function of the seed, its purpose and its index.

No generator state has to be saved, and neither the number of processes nor the order of work changes a
number.
"""

import hashlib

import torch
from torch import Tensor


def stream_seed(seed: int, *place: object) -> int:
    """Return a seed for one purpose and index: ("rollout", 7), ("order", 3, 0), ..."""
    words = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *place: object) -> torch.Generator:
    """Return a new CPU generator for one purpose and index."""
    return torch.Generator().manual_seed(stream_seed(seed, *place))


def uniforms(num_rows: int, num_columns: int, seed: int, *place: object) -> Tensor:
    """Return numbers in [0, 1), one per row and column, in double precision on the CPU."""
    return torch.rand(num_rows, num_columns, generator=stream(seed, *place), dtype=torch.float64)


def permutation(num: int, seed: int, *place: object) -> Tensor:
    """Return a random order of range(num), (num,) long on the CPU."""
    return torch.randperm(num, generator=stream(seed, *place))

"""The device, precision and seeds of this process."""

import os
import random
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Runtime

MIN_PARAMETERS_FOR_THREADS = (
    2_000_000  # parameters; with 1 million two threads took twice as long as one
)


@dataclass(slots=True, kw_only=True)
class Device:
    """Where tensors live, and the precision of parameters and activations (engine.py)."""

    torch: torch.device
    dtype: torch.dtype

    def autocast(self):
        """Return a context in which activations are computed in `dtype`; no context for float32."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.torch.type, dtype=self.dtype)

    def peak_memory(self) -> dict[str, float]:
        """Return the peak memory in GiB: of the device, or of the process on a CPU."""
        if self.torch.type == "cuda":
            return {"mem/peak_gib": torch.cuda.max_memory_allocated(self.torch) / 2**30}
        return {"mem/peak_gib": _peak_resident() / 2**30}

    def __str__(self) -> str:
        name = (
            torch.cuda.get_device_name(self.torch) if self.torch.type == "cuda" else self.torch.type
        )
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


def pick_device(runtime: Runtime) -> Device:
    """Return the configured device, or the best one found."""
    if runtime.num_threads is not None:
        torch.set_num_threads(runtime.num_threads)
    device = _usable_device(
        _local_device(runtime.device if runtime.device != "auto" else _best_device())
    )
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or deepspeed warns on stdout when imported
    if runtime.dtype == "auto":
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    else:
        dtype = getattr(torch, runtime.dtype)
    return Device(torch=device, dtype=dtype)


def threads_for(num_parameters: int, most: int) -> int:
    """Return one thread for a small model, where waiting takes longer than computing; else `most`."""
    return 1 if num_parameters < MIN_PARAMETERS_FOR_THREADS else most


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _local_device(name: str) -> str:
    """Return the GPU of this process's local rank, where several processes share a machine."""
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1 or not name.startswith("cuda"):
        return name
    if name != "cuda":
        raise UserError(f"runtime.device={name} is one GPU: use runtime.device=cuda for several")
    return f"cuda:{os.environ['LOCAL_RANK']}"


def _usable_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # or every process also opens a context on the first GPU
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"runtime.device={name} is not usable here: {str(error).splitlines()[0]}; "
            "use runtime.device=auto"
        ) from error
    return device


def seed_everything(seed: int) -> None:
    """Seed Python and torch: runs repeat on the same machine with the same library versions."""
    random.seed(seed)
    torch.manual_seed(seed)


def _peak_resident() -> float:
    if os.name == "nt":
        return 0.0
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

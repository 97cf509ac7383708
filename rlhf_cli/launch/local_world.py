"""How many workers this node starts: one, as many as are configured, or one for each GPU."""

import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import version

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Runtime

DEEPSPEED = "CROSS_SIZE"  # set by DeepSpeed's launcher, which hides all GPUs but one from a process


def local_world_size(runtime: Runtime) -> int:
    """Return the number of workers of this node; UserError when its GPUs do not suffice."""
    wanted, device = runtime.num_processes, runtime.device
    if wanted == 1 or device not in ("auto", "cuda"):
        if (wanted or 1) > 1 and device != "cpu":
            raise UserError(
                f"runtime.device={device} is one device, for runtime.num_processes=1: "
                "use runtime.device=auto"
            )
        return wanted or 1
    gpus = count_gpus()
    if wanted and wanted > gpus and (gpus or device == "cuda"):
        raise UserError(
            f"runtime.num_processes={wanted}, but this machine has {gpus} GPU{'s' * (gpus != 1)}: "
            "lower it, or use runtime=cpu"
        )
    return wanted or gpus or 1


def count_gpus() -> int:
    """Return the number of CUDA devices that a worker will see, without importing torch."""
    if version("torch").endswith("+cpu"):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not is_deepspeed(os.environ):
        names = [name.strip() for name in visible.split(",")]
        # CUDA ignores every device from the first invalid name on.
        ends = [i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
        return min(ends, default=len(names))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(row.startswith("GPU ") for row in listed.stdout.splitlines())


def is_deepspeed(environment: Mapping[str, str]) -> bool:
    """Return whether DeepSpeed's launcher has started this process."""
    return DEEPSPEED in environment

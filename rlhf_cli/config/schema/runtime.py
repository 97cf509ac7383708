"""Section `runtime`: device, precision, processes, sharding. None of it is part of a method."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rlhf_cli.config.schema.constraints import ConfigError, at_most, positive, require

DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
DTYPES = ("auto", "float32", "bfloat16")
MOST_PROCESSES = 256  # on one machine
# Keys of DeepSpeed's dictionary that would be a second source, and the first.
TAKEN_FROM = {
    "train_batch_size": "<stage>.batch",
    "train_micro_batch_size_per_gpu": "<stage>.batch.microbatch",
    "gradient_accumulation_steps": "<stage>.batch",
    "gradient_clipping": "<stage>.optim.grad_clip",
    "optimizer": "<stage>.optim",
    "scheduler": "<stage>.schedule",
    "bf16": "runtime.dtype",
    "fp16": "runtime.dtype",
}


class Gather(Enum):
    auto = "auto"
    always = "always"
    never = "never"


class Graphs(Enum):
    auto = "auto"
    never = "never"


@dataclass(slots=True, kw_only=True)
class Runtime:
    device: str
    dtype: str
    num_threads: int | None
    num_processes: int | None
    gather: Gather
    offload: bool
    cuda_graphs: Graphs
    timeout: float
    reference_implementation: bool
    compile: bool
    deepspeed: dict[str, Any] | None

    def __post_init__(self):
        is_device = DEVICES.fullmatch(self.device) is not None
        hint = ": did you mean cuda?" if self.device.startswith(("gpu", "nvidia")) else ""
        known = "auto, cpu, cuda, cuda:<number>, mps"
        require(self, "device", is_device, f"is not one of {known}{hint}")
        require(self, "dtype", self.dtype in DTYPES, f"is not one of {', '.join(DTYPES)}")
        positive(self, "num_threads", "num_processes")
        at_most(self, MOST_PROCESSES, "num_processes", unit="processes of one machine")
        positive(self, "timeout", unit="seconds")
        stage = zero_stage(self.deepspeed)
        can_compile = not (self.reference_implementation or stage)
        text = "is for plain torch: leave out .reference_implementation and ZeRO, or .compile"
        require(self, "compile", can_compile or not self.compile, text)
        text = "moves complete models; under ZeRO-3 choose runtime=zero3_offload"
        require(self, "offload", not (self.offload and stage == 3), text)


def zero_stage(settings: dict[str, Any] | None) -> int | None:
    """Return the ZeRO stage of DeepSpeed's dictionary, whose other keys are checked too."""
    if settings is None:
        return None
    for key, source in TAKEN_FROM.items():
        if key in settings:
            raise ConfigError(f"runtime.deepspeed.{key} is taken from {source}: leave it out")
    stage = (settings.get("zero_optimization") or {}).get("stage")
    if stage not in (1, 2, 3):
        raise ConfigError(
            f"runtime.deepspeed.zero_optimization.stage={stage} is none of 1, 2, 3: "
            "choose runtime=zero1, zero2 or zero3, or runtime=ddp for a complete copy per process"
        )
    return stage

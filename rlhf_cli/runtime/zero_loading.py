"""DeepSpeed's start: its dictionary, its manners, and models that are sharded while they are read."""

import copy
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Runtime
from rlhf_cli.runtime.world import World

STAGES = (1, 2, 3)


def stage_of(runtime: Runtime) -> int:
    """The ZeRO stage; refuses what this engine does not train with."""
    zero = (runtime.deepspeed or {}).get("zero_optimization", {})
    where, stage = "runtime.deepspeed.zero_optimization", zero.get("stage")
    if stage not in STAGES:
        raise UserError(
            f"{where}.stage={stage} is none of 1, 2, 3: choose runtime=zero1, zero2 or zero3, "
            "or runtime.deepspeed=null for whole copies"
        )
    if zero.get("round_robin_gradients"):
        raise UserError(f"{where}.round_robin_gradients is not supported: leave it out")
    for part in ("offload_param", "offload_optimizer"):
        if (zero.get(part) or {}).get("device") == "nvme":
            raise UserError(f"{where}.{part}.device=nvme is not supported: use cpu")
    return stage


def dictionary(
    runtime: Runtime, world: World, dtype: torch.dtype, *, grad_clip: float | None = None
) -> dict[str, Any]:
    """The user's dictionary with what follows from other keys.

    Batch sizes are a formality here: losses come divided by what they count. Gradients of bfloat16
    weights add up in float32.
    """
    given = copy.deepcopy(runtime.deepspeed or {})
    taken = {
        "train_micro_batch_size_per_gpu": 1,
        "train_batch_size": world.size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": grad_clip or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if dtype is torch.bfloat16:
        taken["bf16"] = {"enabled": True}
        given.setdefault("data_types", {"grad_accum_dtype": "fp32"})
    return given | taken


def start(world: World) -> Any:
    """The deepspeed module, silent and without the operation that it would compile on a CPU."""
    os.environ.setdefault("LOCAL_RANK", str(world.device.index or 0))
    if world.device.type != "cuda":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # torch renames collectives that deepspeed calls by their old names
    warnings.filterwarnings("ignore", category=FutureWarning, message=r".*(_tensor|_base)\b.*")
    import deepspeed

    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False, verbose=False)
    return deepspeed


@contextmanager
def sharded_loading(runtime: Runtime, world: World, dtype: torch.dtype) -> Iterator[None]:
    """Around `from_pretrained`, `from_config` and growing embeddings: every process keeps its shards.

    Transformers builds one module after the other, and only the main process reads the weights.
    dtype: of the shards, the one that `from_pretrained` is asked for.
    """
    start(world)
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    config = HfDeepSpeedConfig(dictionary(runtime, world, dtype))  # seen as long as it is alive
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del config


def cast_shards(model: nn.Module, dtype: torch.dtype) -> dict[nn.Parameter, tuple[Tensor, bool]]:
    """Bring parameters to `dtype`; returns what they were where that was finer.

    With each tensor whether it holds this process's elements of a sharded parameter only.
    """
    finer = {}
    for parameter in model.parameters():
        held = parameter.ds_tensor if is_sharded(parameter) else parameter
        if held.dtype == dtype:
            continue
        if torch.finfo(held.dtype).bits > torch.finfo(dtype).bits:
            finer[parameter] = (held.data, is_sharded(parameter))
        held.data = held.data.to(dtype)
        parameter.data = parameter.data.to(dtype)
    return finer


def is_sharded(parameter: nn.Parameter) -> bool:
    """Whether zero.Init has dealt this parameter out."""
    return "ds_tensor" in vars(parameter)

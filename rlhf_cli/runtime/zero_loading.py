"""DeepSpeed's configuration and import, and models that are sharded while they are read."""

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


def required_stage(runtime: Runtime) -> int:
    """Return the ZeRO stage; UserError for what this engine cannot train with."""
    zero = (runtime.deepspeed or {}).get("zero_optimization", {})
    where, stage = "runtime.deepspeed.zero_optimization", zero.get("stage")
    if stage not in STAGES:
        raise UserError(
            f"{where}.stage={stage} is none of 1, 2, 3: choose runtime=zero1, zero2 or zero3, "
            "or runtime.deepspeed=null for complete copies"
        )
    if zero.get("round_robin_gradients"):
        raise UserError(f"{where}.round_robin_gradients is not supported: leave it out")
    for part in ("offload_param", "offload_optimizer"):
        if (zero.get(part) or {}).get("device") == "nvme":
            raise UserError(f"{where}.{part}.device=nvme is not supported: use cpu")
    return stage


def deepspeed_config(
    runtime: Runtime, world: World, dtype: torch.dtype, *, grad_clip: float | None = None
) -> dict[str, Any]:
    """Return the user's dictionary with what follows from other keys, validated by DeepSpeed.

    Batch sizes have no effect: losses are divided by their own counts. Gradients of bfloat16 weights are
    summed in float32.
    """
    import_deepspeed(world)
    from deepspeed.runtime.config import DeepSpeedConfig
    from pydantic import ValidationError

    config = copy.deepcopy(runtime.deepspeed or {}) | {
        "train_micro_batch_size_per_gpu": 1,
        "train_batch_size": world.size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": grad_clip or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if dtype is torch.bfloat16:
        config["bf16"] = {"enabled": True}
        config.setdefault("data_types", {"grad_accum_dtype": "fp32"})
    try:
        DeepSpeedConfig(config)
    except ValidationError as error:
        raise UserError(_first_fault(error)) from error
    return config


def _first_fault(error: Any) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    return (
        f"DeepSpeed refuses {key} in runtime.deepspeed ({error.title}): {fault['msg']}; "
        "correct it or leave it out"
    )


def import_deepspeed(world: World) -> Any:
    """Return the deepspeed module, initialised in our process group, without its messages or kernels."""
    os.environ.setdefault("LOCAL_RANK", str(world.device.index or 0))
    if world.device.type != "cuda":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings(  # torch has renamed collectives that deepspeed calls by their old names
        "ignore",
        category=FutureWarning,
        message=r"`torch\.distributed\.(reduce_scatter|all_gather)",
    )
    import deepspeed

    # Results go to stdout, so a library's log may not.
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
    # Else its shared-memory collectives are compiled at the first use, which takes a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False, verbose=False)
    return deepspeed


@contextmanager
def sharded_loading(runtime: Runtime, world: World) -> Iterator[None]:
    """Shard models inside `from_pretrained`, `from_config` and the resizing of embeddings.

    Transformers builds one module after the other, and only rank 0 reads the weights, in float32.
    """
    # In float32, whatever the runtime's dtype: the engine casts the shards and keeps what that
    # loses.
    validated = deepspeed_config(runtime, world, torch.float32)
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    config = HfDeepSpeedConfig(validated)  # transformers sees it as long as it lives
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del config


def cast_shards(model: nn.Module, dtype: torch.dtype) -> dict[nn.Parameter, tuple[Tensor, bool]]:
    """Cast parameters to `dtype` and return the values of those that were more precise.

    With each tensor: whether it holds only this process's elements of a sharded parameter.
    """
    higher_precision = {}
    for parameter in model.parameters():
        held = parameter.ds_tensor if is_sharded(parameter) else parameter
        if held.dtype == dtype:
            continue
        if torch.finfo(held.dtype).bits > torch.finfo(dtype).bits:
            higher_precision[parameter] = (held.data, is_sharded(parameter))
        held.data = held.data.to(dtype)
        parameter.data = parameter.data.to(dtype)
    return higher_precision


def is_sharded(parameter: nn.Parameter) -> bool:
    """Return whether zero.Init has sharded this parameter."""
    return "ds_tensor" in vars(parameter)

"""Build networks and engines: plain, replicated or sharded, by the runtime's configuration."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from rlhf_cli.config.schema import Optim, Runtime
from rlhf_cli.runtime.data_parallel import Replicated
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.offload import OffloadedNetwork
from rlhf_cli.runtime.world import World


def open_engine(
    model: nn.Module,
    *,
    optim: Optim,
    device: Device,
    world: World,
    runtime: Runtime,
    ema_decay: float | None = None,
) -> Engine:
    """Return the engine that trains a model."""
    if runtime.deepspeed is not None:
        from rlhf_cli.runtime.zero import ZeroEngine

        return ZeroEngine(
            model, optim=optim, device=device, world=world, runtime=runtime, ema_decay=ema_decay
        )
    kind = Engine if world.size == 1 else Replicated
    return kind(model, optim=optim, device=device, world=world, ema_decay=ema_decay)


def open_network(model: nn.Module, *, device: Device, world: World, runtime: Runtime) -> Network:
    """Return a frozen model, sharded where the trained ones are."""
    # Stages 1 and 2 divide gradients and optimizer state, of which a frozen model has none.
    if zero_stage(runtime) == 3:
        from rlhf_cli.runtime.zero import ZeroNetwork

        return ZeroNetwork(model, device=device, world=world, runtime=runtime)
    kind = OffloadedNetwork if runtime.offload and device.torch.type != "cpu" else Network
    return kind(model, device=device)


def model_loading(runtime: Runtime, world: World) -> AbstractContextManager:
    """Return the context of `from_pretrained`: under ZeRO-3 a model is sharded as it is read."""
    if zero_stage(runtime) == 3:
        from rlhf_cli.runtime.zero_loading import sharded_loading

        return sharded_loading(runtime, world)
    return nullcontext()


def local_parameters(model: nn.Module, world: World) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters by name; of a sharded one, this process's part."""
    for name, parameter in model.named_parameters():
        shard = vars(parameter).get("ds_tensor")
        if shard is None:
            yield name, parameter
        else:  # the last one is padded with whatever the memory held
            yield name, shard[: max(0, parameter.ds_numel - world.rank * shard.numel())]


def zero_stage(runtime: Runtime) -> int | None:
    """Return the ZeRO stage of the DeepSpeed dictionary; None without one."""
    if runtime.deepspeed is None:
        return None
    return int(runtime.deepspeed.get("zero_optimization", {}).get("stage", 0))

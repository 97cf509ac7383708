"""Generation from weights that ZeRO-3 keeps sharded: gather them once, or layer by layer for each token.

Gathering every layer for every token costs ten times the time once models are not tiny; gathering all
of them once costs the memory of a complete copy.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import nn

from rlhf_cli.config.schema import Gather
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.world import World

MODEL_COPIES = 1.5  # that must fit: the key-value cache and activations need memory too


class ZeroGeneration:
    """How one model generates, decided at the first use: by then all models of the stage are loaded."""

    def __init__(self, zero: Any, model: nn.Module, device: Device, world: World, gather: Gather):
        self.zero, self.model, self.device = zero, model, device
        self.world, self.gather = world, gather

    @cached_property
    def layer_by_layer(self) -> bool:
        """Return whether layers are gathered for every token, all processes in step. Collective."""
        if self.gather is not Gather.auto:
            return self.gather is Gather.never
        # All processes or none: if one gathers layer by layer, the others must take part.
        return self.world.any(self.free_bytes < MODEL_COPIES * self.model_bytes)

    @cached_property
    def free_bytes(self) -> int:
        """Return the bytes that this process may still allocate."""
        return _free_memory(self.device.torch)

    @property
    def model_bytes(self) -> int:
        """Return the bytes of a complete copy."""
        return sum(p.ds_numel * p.element_size() for p in self.model.parameters())

    def note(self) -> str:
        """Return the decision in one sentence. Collective."""
        how = (
            "layer by layer, all processes in step"
            if self.layer_by_layer
            else "from one gathered copy"
        )
        if self.gather is not Gather.auto:
            size = _gib(self.model_bytes)
            return f"generates {how} ({size} of weights; runtime.gather={self.gather.name})"
        return (
            f"generates {how}: {MODEL_COPIES:g} x {_gib(self.model_bytes)} of weights, "
            f"{_gib(self.free_bytes)} free on the main process"
        )

    @contextmanager
    def open(self) -> Iterator[nn.Module]:
        """Yield the model, to be called once per token."""
        self.zero.empty_partition_cache()  # or weights still in flight would not be gathered
        way = self._layer_by_layer() if self.layer_by_layer else self._gathered()
        with way, self.device.autocast():
            yield self.model

    @contextmanager
    def _layer_by_layer(self) -> Iterator[None]:
        """Restart DeepSpeed's order of layers at each forward, as a forward of its engine does."""
        restart = self._offload().get_param_coordinator().reset_step
        handle = self.model.register_forward_pre_hook(lambda *_: restart(), prepend=True)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """Gather all weights and remove DeepSpeed's hooks; both are undone whatever happens."""
        from deepspeed.runtime.zero import GatheredParameters

        # DeepSpeed's hooks would release every layer again after its first use.
        with GatheredParameters(list(self.model.parameters())), _hooks_removed(self._hooks()):
            yield

    def _hooks(self) -> list:
        offload = self._offload()
        return [offload.fwd_pre_hook, *offload.forward_hooks, *offload.backward_hooks]

    def _offload(self) -> Any:
        """Return DeepSpeed's owner of sharded parameters: a frozen model's optimizer, else a part of it."""
        optimizer = self.zero.optimizer
        return optimizer.parameter_offload if self.zero.basic_optimizer else optimizer


@contextmanager
def _hooks_removed(handles: list) -> Iterator[None]:
    """Remove the hooks of these handles for a while; their order is restored."""
    taken = [
        (hooks, handle.id, hooks.pop(handle.id))
        for handle in handles
        if (hooks := handle.hooks_dict_ref()) is not None
    ]
    try:
        yield
    finally:
        for hooks, number, hook in taken:
            hooks[number] = hook


def _free_memory(device: torch.device) -> int:
    """Return the free bytes of the device, with torch's unused ones; on a CPU a share of the machine's."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    processes = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    return psutil.virtual_memory().available // processes


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size > 2**27 else f"{size / 2**20:.1f} MiB"

"""Generating from weights that ZeRO-3 keeps sharded: gather them once, or step layer by layer.

Gathering every layer for every token costs ten times the time once models are not tiny; gathering all
of them once costs the memory of a whole copy.
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

ROOM = 1.5  # copies of the model that must fit: the key-value cache and activations need room too


class Rollout:
    """How one model generates, decided when first asked: by then all models of the stage are there."""

    def __init__(self, zero: Any, model: nn.Module, device: Device, world: World, gather: Gather):
        self.zero, self.model, self.device = zero, model, device
        self.world, self.gather = world, gather

    @cached_property
    def in_step(self) -> bool:
        """Whether all processes take every token together. Collective."""
        if self.gather is not Gather.auto:
            return self.gather is Gather.never
        return self.world.any(self.free < ROOM * self.size)

    @cached_property
    def free(self) -> int:
        """Bytes that this process may still take."""
        return _free_memory(self.device.torch)

    @property
    def size(self) -> int:
        """Bytes of a whole copy."""
        return sum(p.ds_numel * p.element_size() for p in self.model.parameters())

    def said(self) -> str:
        """The decision in one sentence. Collective."""
        how = "layer by layer, all processes in step" if self.in_step else "from one gathered copy"
        if self.gather is not Gather.auto:
            return (
                f"generates {how} ({_gib(self.size)} of weights; runtime.gather={self.gather.name})"
            )
        return (
            f"generates {how}: {ROOM:g} x {_gib(self.size)} of weights, "
            f"{_gib(self.free)} free on the main process"
        )

    @contextmanager
    def open(self) -> Iterator[nn.Module]:
        """The model, to be called once a token."""
        self.zero.empty_partition_cache()  # or weights still in flight would not be gathered
        way = self._traced() if self.in_step else self._gathered()
        with way, self.device.autocast():
            yield self.model

    @contextmanager
    def _traced(self) -> Iterator[None]:
        """Each forward starts DeepSpeed's order of layers anew, as a forward of its engine would."""
        restart = self._offload().get_param_coordinator().reset_step
        handle = self.model.register_forward_pre_hook(lambda *_: restart(), prepend=True)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """All weights whole, DeepSpeed's hooks off; both undone whatever happens."""
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(list(self.model.parameters())), _without(self._hooks()):
            yield

    def _hooks(self) -> list:
        offload = self._offload()
        return [offload.fwd_pre_hook, *offload.forward_hooks, *offload.backward_hooks]

    def _offload(self) -> Any:
        """DeepSpeed's keeper of sharded parameters: the optimizer of a frozen model, else part of it."""
        optimizer = self.zero.optimizer
        return optimizer.parameter_offload if self.zero.basic_optimizer else optimizer


@contextmanager
def _without(handles: list) -> Iterator[None]:
    """The hooks behind these handles do not fire meanwhile; their order is as before afterwards."""
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
    """Of the device, with what torch holds unused; on a CPU this process's share of the machine's."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    processes = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    return psutil.virtual_memory().available // processes


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size > 2**27 else f"{size / 2**20:.1f} MiB"

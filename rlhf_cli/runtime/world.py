"""The worker processes of a stage and their collectives.

A single process is a world of size 1. Everything here is collective: all processes call it, in the
same order.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlhf_cli.config.environment import STORE_SOCKET
from rlhf_cli.core.microbatches import WHOLE, Share


@dataclass(slots=True, frozen=True)
class World:
    """A single process; `Group` is several."""

    share: Share = WHOLE

    @property
    def rank(self) -> int:
        return self.share.rank

    @property
    def size(self) -> int:
        return self.share.size

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Return the elementwise sum over the processes, on the device of `values`."""
        return values

    def all_reduce_max(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        return number

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on at least one process."""
        return flag

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value (small, and picklable)."""
        return value

    def barrier(self) -> None:
        """Wait for all processes."""

    def sum_scalars(self, numbers: dict[str, float]) -> dict[str, float]:
        """Return each number summed over the processes, in double precision."""
        summed = self.all_reduce(torch.tensor(list(numbers.values()), dtype=torch.float64))
        return dict(zip(numbers, summed.tolist(), strict=True))


@dataclass(slots=True, frozen=True)
class Group(World):
    """torch.distributed's default group; tensors are reduced on `device`.

    waiting: a context open while scalars are exchanged, when each process waits for the slowest one.
    Reducing tensors counts as work of its caller.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    waiting: Callable[[], AbstractContextManager] = nullcontext

    def all_reduce(self, values: Tensor) -> Tensor:
        # A copy, because dist.all_reduce overwrites its argument and the caller keeps its own
        # values.
        moved = values.detach().to(self.device, copy=True).contiguous()
        dist.all_reduce(moved)
        return moved.to(values.device)

    def all_reduce_max(self, number: int) -> int:
        with self.waiting():
            held = torch.tensor([number], device=self.device)
            dist.all_reduce(held, op=dist.ReduceOp.MAX)
            return int(held)

    def any(self, flag: bool) -> bool:
        return self.sum_scalars({"flag": float(flag)})["flag"] > 0

    def broadcast(self, value: Any) -> Any:
        with self.waiting():
            held = [value]
            dist.broadcast_object_list(held, src=0, device=self.device)
            return held[0]

    def barrier(self) -> None:
        self.sum_scalars({"barrier": 1.0})

    def sum_scalars(self, numbers: dict[str, float]) -> dict[str, float]:
        with self.waiting():
            return World.sum_scalars(self, numbers)


def open_world(
    device: torch.device,
    *,
    timeout: float,
    grouped: bool,
    waiting: Callable[[], AbstractContextManager] = nullcontext,
) -> World:
    """Join the processes that were started together (RANK and WORLD_SIZE are set).

    grouped: make a process group even for a single process, because DeepSpeed needs one.
    timeout: seconds after which a collective fails; the watchdog reports earlier.
    waiting: see Group.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    timeout_delta = timedelta(seconds=timeout)
    if size == 1 and not grouped:
        return World()
    # libraries that open groups later take this default, which is half an hour in torch
    dist.distributed_c10d.default_pg_timeout = timeout_delta
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not dist.is_initialized():
        # A single process has no other to meet, so no port is opened.
        store = dist.HashStore() if size == 1 else _open_store(rank, size, timeout_delta)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=timeout_delta
        )
    return Group(share=Share(rank, size), device=device, waiting=waiting)


def _open_store(rank: int, size: int, timeout_delta: timedelta) -> dist.Store:
    """Return the store of the rendezvous, served by rank 0 at the socket that its parent has opened.

    A TCPStore that opens its own socket listens on every interface, and has no password.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    listening = int(os.environ[STORE_SOCKET]) if rank == 0 else None
    return dist.TCPStore(
        address, port, size, is_master=rank == 0, timeout=timeout_delta,
        wait_for_workers=False, master_listen_fd=listening,
    )  # fmt: skip


def close_world() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()

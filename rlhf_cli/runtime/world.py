"""The processes that work on one stage together, and what they tell each other.

One process is a world too: its sums are what it has. Everything here is a collective: all processes
call it, in the same order.
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
from rlhf_cli.core.sharing import WHOLE, Share


@dataclass(slots=True, frozen=True)
class World:
    """One process alone; `Group` is many."""

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

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over the processes, on the device of `values`."""
        return values

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        return number

    def any(self, flag: bool) -> bool:
        """Whether it holds on one process at least."""
        return flag

    def agreed(self, value: Any) -> Any:
        """The main process's value (anything that pickles, small)."""
        return value

    def barrier(self) -> None:
        """Wait until all are here."""

    def totals(self, numbers: dict[str, float]) -> dict[str, float]:
        """Each number summed over the processes, in double precision."""
        summed = self.sum(torch.tensor(list(numbers.values()), dtype=torch.float64))
        return dict(zip(numbers, summed.tolist(), strict=True))


@dataclass(slots=True, frozen=True)
class Group(World):
    """torch.distributed's default group; tensors cross over on `device`.

    waiting: is open while the processes agree on a number, for which each waits for the slowest. To
    add up tensors is work of whoever asks for it.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    waiting: Callable[[], AbstractContextManager] = nullcontext

    def sum(self, values: Tensor) -> Tensor:
        moved = values.detach().to(self.device, copy=True).contiguous()
        dist.all_reduce(moved)
        return moved.to(values.device)

    def largest(self, number: int) -> int:
        with self.waiting():
            held = torch.tensor([number], device=self.device)
            dist.all_reduce(held, op=dist.ReduceOp.MAX)
            return int(held)

    def any(self, flag: bool) -> bool:
        return self.totals({"flag": float(flag)})["flag"] > 0

    def agreed(self, value: Any) -> Any:
        with self.waiting():
            held = [value]
            dist.broadcast_object_list(held, src=0, device=self.device)
            return held[0]

    def barrier(self) -> None:
        self.totals({"here": 1.0})

    def totals(self, numbers: dict[str, float]) -> dict[str, float]:
        with self.waiting():
            return World.totals(self, numbers)


def open_world(
    device: torch.device,
    *,
    timeout: float,
    grouped: bool,
    waiting: Callable[[], AbstractContextManager] = nullcontext,
) -> World:
    """Join the processes that were started together (RANK and WORLD_SIZE say so).

    grouped: make a process group even for a process alone, because DeepSpeed needs one.
    timeout: seconds after which a collective gives up; the watchdog speaks before that.
    waiting: see Group.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    patience = timedelta(seconds=timeout)
    if size == 1 and not grouped:
        return World()
    # groups that libraries open later take torch's own default: half an hour
    dist.distributed_c10d.default_pg_timeout = patience
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not dist.is_initialized():
        store = dist.HashStore() if size == 1 else _meeting_point(rank, size, patience)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    return Group(share=Share(rank, size), device=device, waiting=waiting)


def _meeting_point(rank: int, size: int, patience: timedelta) -> dist.Store:
    """The store where the processes find each other: rank 0 serves it at the socket that it was given.

    A TCPStore that opens its own socket listens on every interface, and it asks for no password.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    listening = int(os.environ[STORE_SOCKET]) if rank == 0 else None
    return dist.TCPStore(
        address, port, size, is_master=rank == 0, timeout=patience,
        wait_for_workers=False, master_listen_fd=listening,
    )  # fmt: skip


def close_world() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()

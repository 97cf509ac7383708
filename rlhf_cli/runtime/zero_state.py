"""The sharded state of a model trained under ZeRO: float32 masters, optimizer moments, their average.

DeepSpeed stores the masters of one process in flat tensors, each a sequence of parts of parameters; the
optimizer's state has the same layout. Here the part of every parameter is located, so that states can be
saved and restored per parameter, whatever the stage and the number of processes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_cli.core.estimates import ema_update_
from rlhf_cli.runtime.optimizer import get_state, set_state, state_names
from rlhf_cli.runtime.world import World


@dataclass(slots=True, kw_only=True)
class ShardPlacement:
    """Elements start .. start + length of a complete parameter are at `offset` of flat tensor `flat`."""

    flat: int
    offset: int
    start: int
    length: int


class ShardedState:
    """This process's parts. A key is "weight", the name of a moment, or "average" where one is kept."""

    def __init__(self, zero: Any, optimizer: torch.optim.Optimizer, stage: int, world: World):
        self.zero, self.optimizer, self.stage, self.world = zero, optimizer, stage, world
        self.masters: list[Tensor] = (
            zero.fp32_partitioned_groups_flat
            if stage == 3
            else [group["params"][0] for group in optimizer.param_groups]
        )
        self.averages: list[Tensor] = []

    def local_part(self, parameter: nn.Parameter, key: str) -> tuple[Tensor, int]:
        """Return a view of this process's elements of a parameter, and the index of the first one."""
        place = self._placement(parameter)
        if place is None:
            return self.masters[0].detach()[:0], 0
        flat = self._flat(place.flat, key)
        return flat.detach().narrow(0, place.offset, place.length), place.start

    def gather(self, parameter: nn.Parameter, key: str) -> Tensor:
        """Return the complete tensor, bit for bit, on every process: parts are summed as integers."""
        held, start = self.local_part(parameter, key)
        # Every element is non-zero on one process only. Summed as floats, -0.0 would become 0.0.
        blank = torch.zeros(_numel(parameter), dtype=torch.float32, device=held.device)
        blank[start : start + len(held)] = held
        return (
            self.world.all_reduce(blank.view(torch.int32))
            .view(torch.float32)
            .view(_shape(parameter))
        )

    def scatter(self, parameter: nn.Parameter, key: str, tensor: Tensor) -> None:
        """Copy this process's elements from a complete tensor."""
        held, start = self.local_part(parameter, key)
        held.copy_(tensor.reshape(-1)[start : start + len(held)])

    @torch.no_grad()
    def restore_precision(self, higher_precision: dict[nn.Parameter, tuple[Tensor, bool]]) -> None:
        """Set the masters to the values before the working weights were rounded."""
        for parameter, (value, is_part) in higher_precision.items():
            held, start = self.local_part(parameter, "weight")
            # What zero.Init has sharded is this process's part already; else take it from the
            # complete value.
            start = 0 if is_part else start
            held.copy_(value.reshape(-1)[start : start + len(held)])

    def start_average(self) -> None:
        self.averages = [flat.detach().clone() for flat in self.masters]

    def init_moments(self, steps: int) -> None:
        """Set the optimizer's state after `steps` steps, with moments of zero; none before the first."""
        for flat in self.masters if steps else ():
            blank = {name: torch.zeros_like(flat) for name in state_names(steps)}
            set_state(self.optimizer, flat, steps, blank)

    def update_average(self, decay: float | None) -> None:
        """Move the average, where one is kept, towards the masters."""
        if self.averages:
            ema_update_(self.averages, self.masters, decay)

    def use_average(self) -> None:
        for flat, average in zip(self.masters, self.averages, strict=False):
            flat.detach().copy_(average)

    def sync_weights(self) -> None:
        """Copy the masters to the working weights, which forward passes read. Collective."""
        if self.stage < 3:
            self.zero.update_lp_params()
            return
        # Layers that are gathered at this moment hold the old weights: release them first.
        self.zero.empty_partition_cache()
        for number in range(len(self.masters)):
            # A private method of DeepSpeed's step; it has no public one for stage 3.
            self.zero._reassign_or_swap_out_partitioned_parameters(number)

    def discard_gradients(self) -> None:
        """Discard the gradients since the last step."""
        from deepspeed.runtime.zero.stage_1_and_2 import (
            INITIAL_MICRO_STEP_ID,
            DeepSpeedZeroOptimizer,
        )

        self.zero.zero_grad()
        self.zero.clear_backward_seen_flag()
        if not isinstance(self.zero, DeepSpeedZeroOptimizer):
            return
        # zero_grad leaves what was reduced already, to which the next step's gradients would be
        # added.
        self.zero.micro_step_id = INITIAL_MICRO_STEP_ID
        for number in range(len(self.masters)):
            self.zero.averaged_gradients[number] = None
            self.zero.all_grad_tensors[number] = None

    def _flat(self, number: int, key: str) -> Tensor:
        if key == "weight":
            return self.masters[number]
        if key == "average":
            return self.averages[number]
        return get_state(self.optimizer, self.masters[number], key)

    def _placement(self, parameter: nn.Parameter) -> ShardPlacement | None:
        """Return where the parameter's part is; None where this process has no element of it."""
        return (
            self._stage_3_placement(parameter)
            if self.stage == 3
            else self._stage_1_2_placement(parameter)
        )

    def _stage_1_2_placement(self, parameter: nn.Parameter) -> ShardPlacement | None:
        """Return the part under stages 1 and 2: a sequence of parameters is cut into equal parts."""
        # DeepSpeed's hp (high precision) are the masters, its lp (low precision) the working
        # weights.
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        return ShardPlacement(
            flat=mapping.param_group_index,
            offset=mapping.hp_fragment_address.start,
            start=mapping.lp_fragment_address.start,
            length=mapping.hp_fragment_address.numel,
        )

    def _stage_3_placement(self, parameter: nn.Parameter) -> ShardPlacement:
        """Return the part under stage 3: a parameter is cut into equal parts, the last padded or empty."""
        flat, offset, numel = self.zero.grad_position[self.zero.get_param_id(parameter)]
        start = min(numel * parameter.ds_zero_partition_rank, parameter.ds_numel)
        length = min(numel, parameter.ds_numel - start)
        return ShardPlacement(flat=flat, offset=offset, start=start, length=length)


def keys(steps: int, *, average: bool) -> tuple[str, ...]:
    """Return the keys of a parameter's state: moments exist once a step was taken."""
    return ("weight", *state_names(steps), *(("average",) if average else ()))


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


def _numel(parameter: nn.Parameter) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())

"""What ZeRO keeps sharded of a trained model: float32 masters, AdamW's moments, their average.

DeepSpeed lays the masters of one process out in flat tensors, each a run of pieces of parameters;
AdamW's state has the same layout. Here every parameter finds its piece again, so that states can be
told and restored parameter by parameter, whatever the stage and the number of processes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_cli.core.estimates import ema_update_
from rlhf_cli.runtime.engine import MOMENTS
from rlhf_cli.runtime.world import World


@dataclass(slots=True, kw_only=True)
class Place:
    """Elements start .. start + length of the whole parameter lie at `offset` of flat tensor `flat`."""

    flat: int
    offset: int
    start: int
    length: int


class Shards:
    """This process's pieces. `keys` are weight, exp_avg, exp_avg_sq and, where one is kept, average."""

    def __init__(self, zero: Any, adam: torch.optim.Optimizer, stage: int, world: World):
        self.zero, self.adam, self.stage, self.world = zero, adam, stage, world
        self.masters: list[Tensor] = (
            zero.fp32_partitioned_groups_flat
            if stage == 3
            else [group["params"][0] for group in adam.param_groups]
        )
        self.averages: list[Tensor] = []

    def piece(self, parameter: nn.Parameter, key: str) -> tuple[Tensor, int]:
        """This process's elements of a parameter, a view, and where they start in the whole one."""
        place = self._place(parameter)
        if place is None:
            return self.masters[0].detach()[:0], 0
        flat = self._flat(place.flat, key)
        return flat.detach().narrow(0, place.offset, place.length), place.start

    def whole(self, parameter: nn.Parameter, key: str) -> Tensor:
        """The whole tensor on every process, bit for bit: pieces are added to zeros as integers."""
        held, start = self.piece(parameter, key)
        blank = torch.zeros(_numel(parameter), dtype=torch.float32, device=held.device)
        blank[start : start + len(held)] = held
        return self.world.sum(blank.view(torch.int32)).view(torch.float32).view(_shape(parameter))

    def fill(self, parameter: nn.Parameter, key: str, whole: Tensor) -> None:
        """Take this process's elements from a whole tensor."""
        held, start = self.piece(parameter, key)
        held.copy_(whole.reshape(-1)[start : start + len(held)])

    @torch.no_grad()
    def refine(self, finer: dict[nn.Parameter, tuple[Tensor, bool]]) -> None:
        """Give the masters the digits that the working weights lost."""
        for parameter, (value, dealt) in finer.items():
            held, start = self.piece(parameter, "weight")
            start = 0 if dealt else start
            held.copy_(value.reshape(-1)[start : start + len(held)])

    def begin_average(self) -> None:
        self.averages = [flat.detach().clone() for flat in self.masters]

    def begin(self, steps: int) -> None:
        """AdamW's state as it is after `steps` steps, its moments still blank; none before the first."""
        for flat in self.masters if steps else ():
            fused = self.adam.defaults["fused"]
            self.adam.state[flat] = {
                "step": torch.tensor(float(steps), device=flat.device if fused else "cpu"),
                **{moment: torch.zeros_like(flat) for moment in MOMENTS},
            }

    def follow(self, decay: float | None) -> None:
        """The average, where one is kept, moves towards the masters."""
        if self.averages:
            ema_update_(self.averages, self.masters, decay)

    def use_average(self) -> None:
        for flat, average in zip(self.masters, self.averages, strict=False):
            flat.detach().copy_(average)

    def spread(self) -> None:
        """Bring the working weights, which forwards read, to the masters. Collective."""
        if self.stage < 3:
            self.zero.update_lp_params()
            return
        self.zero.empty_partition_cache()
        for number in range(len(self.masters)):
            self.zero._reassign_or_swap_out_partitioned_parameters(number)

    def forget_gradients(self) -> None:
        """Throw away what backward passes have left since the last step."""
        from deepspeed.runtime.zero.stage_1_and_2 import (
            INITIAL_MICRO_STEP_ID,
            DeepSpeedZeroOptimizer,
        )

        self.zero.zero_grad()
        self.zero.clear_backward_seen_flag()
        if not isinstance(self.zero, DeepSpeedZeroOptimizer):
            return
        self.zero.micro_step_id = INITIAL_MICRO_STEP_ID
        for number in range(len(self.masters)):
            self.zero.averaged_gradients[number] = None
            self.zero.all_grad_tensors[number] = None

    def _flat(self, number: int, key: str) -> Tensor:
        if key == "weight":
            return self.masters[number]
        return self.averages[number] if key == "average" else self._moment(number, key)

    def _moment(self, number: int, key: str) -> Tensor:
        return self.adam.state[self.masters[number]][key]

    def _place(self, parameter: nn.Parameter) -> Place | None:
        """None where no element of the parameter is kept by this process."""
        return self._dealt(parameter) if self.stage == 3 else self._mapped(parameter)

    def _mapped(self, parameter: nn.Parameter) -> Place | None:
        """Stages 1 and 2: a group of parameters in a row, cut into equal parts."""
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        return Place(
            flat=mapping.param_group_index,
            offset=mapping.hp_fragment_address.start,
            start=mapping.lp_fragment_address.start,
            length=mapping.hp_fragment_address.numel,
        )

    def _dealt(self, parameter: nn.Parameter) -> Place:
        """Stage 3: every parameter cut into equal parts, the last ones padded or empty."""
        flat, offset, numel = self.zero.grad_position[self.zero.get_param_id(parameter)]
        start = min(numel * parameter.ds_zero_partition_rank, parameter.ds_numel)
        length = min(numel, parameter.ds_numel - start)
        return Place(flat=flat, offset=offset, start=start, length=length)


def keys(steps: int, *, average: bool) -> tuple[str, ...]:
    """What there is to tell of a parameter: moments exist once a step was taken."""
    return ("weight", *(MOMENTS if steps else ()), *(("average",) if average else ()))


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


def _numel(parameter: nn.Parameter) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())

"""The optimizer of trained models, AdamW: how it is built, and its state per parameter.

The one place to change for another optimizer: the engines and ZeRO's shards read only what is here.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from rlhf_cli.config.schema import Optim
from rlhf_cli.runtime.device import Device

MOMENTS = ("exp_avg", "exp_avg_sq")  # a float32 tensor each, of the parameter's shape


def build_optimizer(
    parameters: Iterable[nn.Parameter], optim: Optim, device: Device
) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters; only matrices decay, not gains and biases."""
    trained = [p for p in parameters if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if _is_matrix(p)], "weight_decay": optim.weight_decay},
            {"params": [p for p in trained if not _is_matrix(p)], "weight_decay": 0.0},
        ],
        lr=optim.lr,
        betas=(optim.betas[0], optim.betas[1]),
        eps=optim.eps,
        fused=device.torch.type in ("cpu", "cuda"),
    )


def state_names(steps: int) -> tuple[str, ...]:
    """Return the names of a parameter's state tensors after `steps` steps; none before the first."""
    return MOMENTS if steps else ()


def get_state(optimizer: torch.optim.Optimizer, parameter: Tensor, name: str) -> Tensor:
    return optimizer.state[parameter][name]


def set_state(
    optimizer: torch.optim.Optimizer, parameter: Tensor, steps: int, tensors: Mapping[str, Tensor]
) -> None:
    """Set a parameter's state as it is after `steps` steps. tensors: by the names of `state_names`."""
    fused = optimizer.defaults["fused"]  # a fused AdamW keeps its step count on the device
    count = torch.tensor(float(steps), device=parameter.device if fused else "cpu")
    optimizer.state[parameter] = {"step": count, **tensors}


def _is_matrix(parameter: nn.Parameter) -> bool:
    """Return whether the complete parameter is one: a shard of a matrix (ZeRO-3) is flat."""
    return len(getattr(parameter, "ds_shape", parameter.shape)) >= 2

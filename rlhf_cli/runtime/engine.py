"""A trainable network with its optimizer. One process; the sharded engines will keep this shape."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from rlhf_cli.config.schema import Optim
from rlhf_cli.runtime.device import Device


class Engine:
    """forward under `autocast`, `backward` any number of times, then one `step`."""

    def __init__(self, model: nn.Module, *, optim: Optim, device: Device):
        self.model = model.to(device.torch).train()
        self.device = device
        self.peak_lr = optim.lr
        self.grad_clip = optim.grad_clip
        self.optimizer = torch.optim.AdamW(
            _decayed_and_not(model, optim.weight_decay),
            lr=optim.lr,
            betas=(optim.betas[0], optim.betas[1]),
            eps=optim.eps,
            fused=device.torch.type in ("cpu", "cuda"),
        )

    def autocast(self) -> AbstractContextManager:
        return self.device.autocast()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, which is already divided by the whole step's tokens or prompts."""
        loss.backward()

    def step(self, lr_factor: float) -> float:
        """One AdamW step at peak_lr * lr_factor; returns the gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * lr_factor
        limit = float("inf") if self.grad_clip is None else self.grad_clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)


def _decayed_and_not(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; gains and biases do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]

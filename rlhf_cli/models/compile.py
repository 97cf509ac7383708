"""torch.compile of a model's blocks: what lies between two attentions becomes a few fused loops.

One block is compiled for all of them, attention itself stays as it is, and so do the names of weights.
"""

import os
import shutil

import torch
from torch import nn
from transformers import AttentionInterface

from rlhf_cli.config.errors import UserError
from rlhf_cli.models.unpadding.attention import ATTENTION, attend, reads_unpadded


def compile_blocks(
    model: nn.Module, device: torch.device, *, backend: str = "inductor"
) -> nn.Module:
    """From here on the model's blocks run compiled, but not while it generates (runtime.engine).

    A packed row has no dimension but its number of tokens, so nothing is compiled twice for a length.
    """
    if not reads_unpadded(model):
        raise UserError(
            f"runtime.compile=true is for models that are read in packed rows; "
            f"{model.config.model_type} is not: leave it out"
        )
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise UserError(
            "runtime.compile=true needs a C++ compiler on a CPU: install g++, name one in CXX, "
            "or leave it out"
        )
    AttentionInterface.register(ATTENTION, torch.compiler.disable(attend))
    for block in blocks(model):
        block.compile(dynamic=True, backend=backend)
    return model


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated layers, by the name that transformers has for what must not be split."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]

"""torch.compile of a model's blocks: the operations between two attentions become a few fused loops.

One block is compiled for all of them; attention itself and the names of weights do not change.
"""

import os
import shutil

import torch
from torch import nn
from transformers import AttentionInterface

from rlhf_cli.config.errors import UserError
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.models.unpadding.attention import ATTENTION, attend


def compile_blocks(
    model: nn.Module, device: torch.device, *, backend: str = "inductor"
) -> nn.Module:
    """Compile the model's blocks; while it generates they run eagerly (runtime.engine).

    An unpadded row has no dimension but its number of tokens, so no length needs another compilation.
    """
    if not reads_unpadded(model):
        raise UserError(
            f"runtime.compile=true is for models that are read without padding; "
            f"{model.config.model_type} is not: leave it out"
        )
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise UserError(
            "runtime.compile=true needs a C++ compiler on a CPU: install g++, name one in CXX, "
            "or leave it out"
        )
    # Attention splits its row by the texts' lengths, which would be compiled again for every batch.
    AttentionInterface.register(ATTENTION, torch.compiler.disable(attend))
    for block in blocks(model):
        block.compile(dynamic=True, backend=backend)
    return model


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated layers, by the names in transformers' `_no_split_modules`."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]

"""Small models under some engine, and how to compare it with the plain one.

A test names the file of conf/runtime whose dictionary it trains with; buckets are made so small that
even a tiny model fills several.
"""

from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from rlhf_cli.config.schema import Gather, Graphs, Optim, Runtime
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.masking import position_ids
from rlhf_cli.models.forward import text_logprobs
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.runtime.device import pick_device
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.runtime.factory import open_engine
from rlhf_cli.runtime.world import World, open_world
from tests.support.tiny_models import SPECIAL, VOCAB, ragged

CONF = Path(__file__).resolve().parents[2] / "conf" / "runtime"
SMALL = {
    "reduce_bucket_size": 500,
    "allgather_bucket_size": 500,
    "stage3_prefetch_bucket_size": 1000,
    "stage3_param_persistence_threshold": 20,
}
# no size divides by two: shards of two processes end in padding
ODD = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=9,
    intermediate_size=11,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=2,
    max_position_embeddings=64,
    **SPECIAL,
)
EMA = 0.9
STEPS, SAVED = 4, 2
ALONE = World()


def runtime(name: str | None, dtype: str = "float32", gather: str = "auto") -> Runtime:
    given = None
    if name is not None:
        given = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))["deepspeed"]
        zero = given["zero_optimization"]
        zero |= {key: size for key, size in SMALL.items() if key in zero}
    return Runtime(
        device="cpu",
        dtype=dtype,
        num_threads=1,
        num_processes=None,
        gather=Gather[gather],
        offload=False,
        cuda_graphs=Graphs.never,
        timeout=60,
        reference_implementation=False,
        compile=False,
        deepspeed=given,
    )


def odd(seed: int = 0, *, packed: bool = False):
    """Return a random language model whose parameters two processes cannot halve."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(deepcopy(ODD), dtype=torch.float32)
    return enable_unpadding(model) if packed else model


def world_of(given: Runtime) -> World:
    return open_world(pick_device(given).torch, timeout=60, grouped=True)


def optim(grad_clip: float | None = 0.5) -> Optim:
    return Optim(lr=0.01, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, grad_clip=grad_clip)


def trained(given: Runtime, world: World, model, *, clip: float | None = 0.5) -> Engine:
    return open_engine(
        model,
        optim=optim(clip),
        device=pick_device(given),
        world=world,
        runtime=given,
        ema_decay=EMA,
    )


def microbatches(step: int, world: World) -> list[tuple[Tensor, Tensor]]:
    """Return the rows of this process one by one; where others have more, an empty row."""
    tokens, mask = step_rows(step)
    mine = [
        (t[None], m[None])
        for t, m in zip(world.share.of(tokens), world.share.of(mask), strict=True)
    ]
    empty = (tokens[:1], torch.zeros_like(mask[:1]))
    return mine + [empty] * (-(-len(tokens) // world.size) - len(mine))


def step_rows(step: int) -> tuple[Tensor, Tensor]:
    return ragged(5 if step % 2 else 4, 9, side="right", seed=step)


def part_of_loss(engine: Engine, tokens: Tensor, mask: Tensor, count: float) -> Tensor:
    learned = mask.clone()
    learned[:, 0] = False
    batch = SFTBatch(
        tokens=tokens, mask=mask, loss_mask=learned, positions=position_ids(mask), packed=False
    )
    return -(engine(text_logprobs, batch) * learned[:, 1:]).sum() / count


def learn(engine: Engine, step: int, world: World) -> tuple[float, float]:
    """Take one optimizer step; return the loss over all processes and the gradient norm."""
    engine.train()
    count, total = float(step_rows(step)[1][:, 1:].sum()), 0.0
    batches = microbatches(step, world)
    for number, (tokens, mask) in enumerate(batches, start=1):
        loss = part_of_loss(engine, tokens, mask, count)
        total += float(loss.detach())
        engine.backward(loss, last=number == len(batches))
    norm = engine.step(1.0 / (1 + step))
    return world.sum_scalars({"loss": total})["loss"], norm


def everything(engine: Engine, world: World) -> dict[str, Tensor]:
    """Return the state of all processes together, whose parts must be disjoint."""
    parts = [None] * world.size
    dist.all_gather_object(parts, dict(engine.state()))
    assert sum(len(part) for part in parts) == len({name for part in parts for name in part})
    return {name: value for part in parts for name, value in part.items()}


def gap(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Return the largest difference; names, shapes, dtypes and devices must be equal."""
    assert sorted(found) == sorted(wanted)
    for name, value in found.items():
        assert value.shape == wanted[name].shape and value.dtype == wanted[name].dtype, name
        assert value.device.type == "cpu"
    return max(float((found[name] - wanted[name]).abs().max()) for name in found)


def same_bits(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    assert sorted(found) == sorted(wanted)
    return all(torch.equal(found[n].view(torch.int32), wanted[n].view(torch.int32)) for n in found)


def far(found, wanted) -> float:
    """Return the largest difference of losses and norms."""
    return float((torch.tensor(found) - torch.tensor(wanted)).abs().max())


def plain_twin(dtype: str = "float32", seed: int = 0) -> Engine:
    return trained(runtime(None, dtype), ALONE, odd(seed))

"""All three stages of a random half-billion-parameter Llama: plain, under ZeRO-2 and ZeRO-3.

The times of the phases of a step are those that the stages log.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from common import LARGE, ROOT, SMALL, Found, llama, section
from runs import RUN, stage_figures, timed

STEPS = (
    "stage=[sft,rm,ppo]",
    "data=tiny_world",
    "data.max_response_tokens=128",
    "tiny_world.demonstrations=256",
    "tiny_world.comparisons=128",
    "tiny_world.prompts=256",
    "sft.epochs=1",
    "sft.batch.size=64",
    "sft.batch.microbatch=16",
    "rm.batch.size=16",
    "rm.batch.microbatch=32",
    "ppo.total_episodes=256",
    "ppo.batch.rollout=64",
    "ppo.batch.minibatch=32",
    "ppo.batch.microbatch=16",
    "model.lr.sft=1e-5",
    "model.lr.rm=1e-5",
    "model.lr.policy=1e-6",
    "model.lr.value=1e-5",
    "samples=1",
)
FEW = (
    "data.max_response_tokens=16",
    "tiny_world.demonstrations=64",
    "tiny_world.comparisons=32",
    "tiny_world.prompts=64",
    "sft.batch.size=32",
    "ppo.total_episodes=64",
    "ppo.batch.rollout=32",
)


def random_llama(folder: Path, shape: dict, place: torch.device) -> int:
    """Write a model folder with the tokenizer of the tiny world; return its parameters."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "rlhf_cli" / "assets" / "tiny")
    model = llama(shape | {"vocab_size": max(shape["vocab_size"], len(tokenizer))}, place=place)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
        setattr(model.generation_config, name, getattr(tokenizer, name))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def stages(found: Found, place: torch.device, rehearse: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "llama"
        found["parameters"] = random_llama(model, SMALL if rehearse else LARGE, place)
        fine, steps = True, (*STEPS, *(FEW if rehearse else ()))
        sharded = ("zero2", "zero3") if find_spec("deepspeed") and not rehearse else ()
        for runtime in ("auto", *sharded):
            words = [f"model.path={model}", f"runtime={runtime}", f"runs_dir={folder}"]
            one = timed([*RUN, "model=generic", *steps, f"name={runtime}", *words], 90)
            one |= {s: stage_figures(Path(folder) / runtime / s) for s in ("sft", "rm", "ppo")}
            found[runtime] = one
            fine = fine and one["code"] == 0
    found["ok"] = fine


if __name__ == "__main__":
    section(stages)

"""The contenders on a GPU with their settings, see gpu/training.py; all are loaded at once."""

from pathlib import Path

from roster import BF16_TRL, FAST_TRL, OURS_BF16, Contender, Task, ours


def runtime_has(word: str) -> bool:
    """Return whether the runtime section of this checkout has this key."""
    conf = Path(__file__).resolve().parents[1] / "conf" / "runtime" / "auto.yaml"
    return any(line.startswith(f"{word}:") for line in conf.read_text().splitlines())


OURS_ON_GPU = [
    OURS_BF16,
    *(
        [
            ours(
                "ours compiled",
                "bfloat16, compiled",
                "runtime.dtype=bfloat16",
                "runtime.compile=true",
            )
        ]
        if runtime_has("compile")
        else []
    ),
]
PLAIN = Contender(
    name="plain loop", script="plain", settings="bf16 autocast, padded batches, whole logits, sdpa"
)
GPU_SFT = [
    PLAIN,
    Contender(
        name="TRL",
        script="trl_sft",
        peers="trl-sft",
        settings="bf16, padded batches, no gradient checkpointing",
        options=BF16_TRL,
    ),
    Contender(
        name="TRL packed",
        script="trl_sft",
        peers="trl-sft",
        settings="bf16, packing, flash attention where it can be imported, else sdpa",
        options=BF16_TRL | {"packing": True, "attention": "best"},
    ),
    *OURS_ON_GPU,
]
GPU_RM = [
    PLAIN,
    Contender(
        name="TRL grouped",
        script="trl_rm",
        peers="trl-sft",
        settings="bf16, group_by_length, no gradient checkpointing",
        options=FAST_TRL | BF16_TRL | {"remove_unused_columns": False},
    ),
    *OURS_ON_GPU,
]
GPU_PPO = [
    Contender(
        name="TRL PPO",
        script="trl_ppo",
        peers="trl-ppo",
        settings="bf16, no gradient checkpointing",
        options=BF16_TRL,
    ),
    *OURS_ON_GPU,
    ours(
        "ours recorded",
        "bfloat16, CUDA graphs",
        "runtime.dtype=bfloat16",
        "runtime.cuda_graphs=auto",
    ),
]
# Several contenders are on the device at once: a batch is 8 texts of about 1000 tokens.
GPU_SIZES = ("half", "1m")  # the second is for --rehearse
GPU_TASKS = {
    "sft": Task(does="sft", contenders=GPU_SFT, batch={"half": 8, "1m": 2}),
    "rm": Task(does="rm", contenders=GPU_RM, batch={"half": 4, "1m": 2}),
    "ppo": Task(does="ppo", contenders=GPU_PPO, batch={"half": 16, "1m": 2}),
}

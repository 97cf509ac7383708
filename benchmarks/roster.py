"""The tasks and the contenders with their settings; the first peer of a task is the baseline.

A peer is listed with the usual settings, and again with those that are fastest here.
"""

from dataclasses import dataclass, field

PLAIN_TRL = {"bf16": False, "gradient_checkpointing": False}
FAST_TRL = PLAIN_TRL | {"train_sampling_strategy": "group_by_length"}
BF16_TRL = {"bf16": True, "gradient_checkpointing": False}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """script: in contenders/ . peers: its environment, "" is this one . settings: as in the table.

    main: one of the main contenders: the peer as usual and at its fastest, ours in both precisions.
    """

    name: str
    script: str
    settings: str
    options: dict | list = field(default_factory=dict)
    peers: str = ""
    main: bool = False

    @property
    def is_ours(self) -> bool:
        return self.script == "ours"


def ours(name: str, settings: str, *words: str, main: bool = True) -> Contender:
    return Contender(name=name, script="ours", settings=settings, options=list(words), main=main)


OURS = ours("ours", "float32, as shipped", "runtime.dtype=float32")
OURS_PACKED = ours(
    "ours packed rows",
    "float32, sft.batching=packed",
    "runtime.dtype=float32",
    "sft.batching=packed",
    main=False,
)
OURS_BF16 = ours("ours bf16", "bfloat16, else as shipped", "runtime.dtype=bfloat16")

SFT = [
    Contender(
        name="TRL",
        script="trl_sft",
        peers="trl-sft",
        settings="float32, no gradient checkpointing, padded batches in random order",
        options=PLAIN_TRL,
        main=True,
    ),
    Contender(
        name="TRL defaults",
        script="trl_sft",
        peers="trl-sft",
        settings="what SFTConfig has: bf16, gradient checkpointing",
    ),
    Contender(
        name="TRL grouped",
        script="trl_sft",
        peers="trl-sft",
        settings="float32, group_by_length",
        options=FAST_TRL,
    ),
    Contender(
        name="TRL padding-free",
        script="trl_sft",
        peers="trl-sft",
        settings="float32, padding_free: the batch as one row, sdpa with a block mask",
        options=PLAIN_TRL | {"padding_free": True, "max_length": None},
    ),
    Contender(
        name="TRL grouped bf16",
        script="trl_sft",
        peers="trl-sft",
        settings="bf16, group_by_length, no gradient checkpointing",
        options=FAST_TRL | BF16_TRL,
    ),
    Contender(
        name="TRL padding-free bf16",
        script="trl_sft",
        peers="trl-sft",
        settings="bf16, padding_free, no gradient checkpointing",
        options=PLAIN_TRL | BF16_TRL | {"padding_free": True, "max_length": None},
        main=True,
    ),
    OURS,
    OURS_PACKED,
    OURS_BF16,
]
RM = [
    Contender(
        name="TRL",
        script="trl_rm",
        peers="trl-sft",
        settings="float32, no gradient checkpointing, padded batches in random order",
        options=PLAIN_TRL,
        main=True,
    ),
    Contender(
        name="TRL defaults",
        script="trl_rm",
        peers="trl-sft",
        settings="what RewardConfig has: bf16, gradient checkpointing",
    ),
    Contender(
        name="TRL grouped",
        script="trl_rm",
        peers="trl-sft",
        settings="float32, group_by_length over the longer response",
        options=FAST_TRL | {"remove_unused_columns": False},
    ),
    Contender(
        name="TRL grouped bf16",
        script="trl_rm",
        peers="trl-sft",
        settings="bf16, group_by_length, no gradient checkpointing",
        options=FAST_TRL | BF16_TRL | {"remove_unused_columns": False},
        main=True,
    ),
    OURS,
    OURS_BF16,
]
PPO = [
    Contender(
        name="TRL PPO",
        script="trl_ppo",
        peers="trl-ppo",
        settings="float32, no gradient checkpointing",
        options=PLAIN_TRL,
        main=True,
    ),
    Contender(
        name="TRL PPO bf16",
        script="trl_ppo",
        peers="trl-ppo",
        settings="bf16, no gradient checkpointing",
        options=BF16_TRL,
    ),
    Contender(
        name="TRL RLOO",
        script="trl_online",
        peers="trl-sft",
        settings="float32; another method: no value model, 4 responses per prompt",
        options=PLAIN_TRL | {"method": "rloo"},
    ),
    Contender(
        name="TRL GRPO",
        script="trl_online",
        peers="trl-sft",
        settings="float32; another method: no value model, 4 responses per prompt",
        options=PLAIN_TRL | {"method": "grpo"},
    ),
    OURS,
    OURS_BF16,
]
ROLLOUT = [
    Contender(
        name="generate",
        script="generate",
        settings="float32, dynamic cache",
        options={"cache": "dynamic"},
        main=True,
    ),
    Contender(
        name="generate static",
        script="generate",
        settings="float32, static cache, not compiled",
        options={"cache": "static"},
    ),
    Contender(
        name="continuous batching",
        script="generate",
        settings="float32, paged sdpa, pages of 32",
        options={"cache": "continuous"},
        main=True,
    ),
    Contender(
        name="generate bf16",
        script="generate",
        settings="bf16 weights, dynamic cache",
        options={"cache": "dynamic", "dtype": "bfloat16"},
    ),
    OURS,
    OURS_BF16,
]


@dataclass(frozen=True, kw_only=True)
class Task:
    """does: the task of a contender . policy: in the material, one that ends or one that does not .
    batch: by size; half the rows of a round. At the small size a round of the slowest takes under a minute.
    """

    does: str
    contenders: list[Contender]
    batch: dict[str, int]
    policy: str = "model"


TASKS = {
    "sft": Task(does="sft", contenders=SFT, batch={"tiny": 16, "small": 8}),
    "rm": Task(does="rm", contenders=RM, batch={"tiny": 16, "small": 4}),
    "ppo": Task(does="ppo", contenders=PPO, batch={"tiny": 16, "small": 6}),
    "ppo-equal": Task(does="ppo", contenders=PPO, batch={"tiny": 16, "small": 6}, policy="endless"),
    "rollout": Task(does="rollout", contenders=ROLLOUT, batch={"tiny": 16, "small": 16}),
    "rollout-equal": Task(
        does="rollout", contenders=ROLLOUT, batch={"tiny": 16, "small": 8}, policy="endless"
    ),
}
PEERS = {
    "trl-sft": "requirements-trl-sft.txt",
    "trl-ppo": "requirements-trl-ppo.txt",
    "plots": "requirements-plots.txt",
}

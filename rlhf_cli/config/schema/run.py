"""The configuration of a run: its own keys and all sections. Values and their meaning are in conf/."""

from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.best_of_n import BestOfN
from rlhf_cli.config.schema.constraints import ConfigError, not_negative, require
from rlhf_cli.config.schema.data import Data
from rlhf_cli.config.schema.dpo import DPO
from rlhf_cli.config.schema.evaluation import Evaluation
from rlhf_cli.config.schema.judge import Judge
from rlhf_cli.config.schema.model import Model
from rlhf_cli.config.schema.policy_gradient import PolicyGradient
from rlhf_cli.config.schema.ppo import PPO, WatchBy
from rlhf_cli.config.schema.raft import RAFT
from rlhf_cli.config.schema.rationales import Rationales
from rlhf_cli.config.schema.reward import Reward
from rlhf_cli.config.schema.rm import RM
from rlhf_cli.config.schema.runtime import Runtime
from rlhf_cli.config.schema.save import Save
from rlhf_cli.config.schema.sft import SFT
from rlhf_cli.config.schema.tasks import Tasks
from rlhf_cli.config.schema.tiny_world import TinyWorld
from rlhf_cli.config.schema.tracking import Tracking

SEEDS = 2**32  # what the random generator of every library accepts
LONGEST_NAME = 255  # bytes of a folder's name


class Resume(Enum):
    auto = "auto"
    last_valid = "last_valid"
    never = "never"


@dataclass(slots=True, kw_only=True)
class Parents:
    """What replaces stages of this run, one field per stage that can be replaced, and a further judge."""

    sft: str | None
    rm: list[str] | None  # several: an ensemble
    check: str | None  # a reward model that no stage of this run is trained against

    def __post_init__(self):
        once = self.rm is None or len(self.rm) == len(set(self.rm)) > 0
        require(self, "rm", once, "must name at least one reward model, and each once")


@dataclass(slots=True, kw_only=True)
class Config:
    name: str
    runs_dir: str
    stage: list[str]  # names of the table of stages (stage_table.py), in its order
    seed: int
    dry_run: bool
    resume: Resume
    parents: Parents
    model: Model
    data: Data
    runtime: Runtime
    sft: SFT
    rm: RM
    reward: Reward
    ppo: PPO
    reinforce: PolicyGradient
    rloo: PolicyGradient
    grpo: PolicyGradient
    dpo: DPO
    raft: RAFT
    raft_random: RAFT
    sft_chosen: RAFT
    best_of_n: BestOfN
    evaluation: Evaluation
    judge: Judge
    samples: int
    save: Save
    tracking: Tracking
    tasks: Tasks
    rationales: Rationales
    tiny_world: TinyWorld

    def __post_init__(self):
        not_negative(self, "samples")
        require(self, "seed", 0 <= self.seed < SEEDS, f"must lie between 0 and {SEEDS - 1}")
        require(
            self,
            "name",
            is_folder_name(self.name),
            "must be a plain folder name: without /, control characters, a . or - in front or "
            f"spaces around it, of at most {LONGEST_NAME} bytes",
        )
        is_folder = bool(self.runs_dir.strip()) and self.runs_dir.isprintable()
        require(self, "runs_dir", is_folder, "must name a folder (runs_dir=. is this one)")
        for name in ("ppo", "reinforce", "rloo", "grpo"):
            by = getattr(self, name).watch.by
            if by is WatchBy.check and self.parents.check is None:
                raise ConfigError(f"{name}.watch.by=check needs parents.check: a reward model")
        if self.ppo.ptx.coef > 0 and not self.data.pretraining:
            raise ConfigError("ppo.ptx.coef > 0 needs data.pretraining: texts to draw from")


def is_folder_name(name: str) -> bool:
    """Return whether `name` is one folder below another, on every file system and in every shell."""
    return (
        name == name.strip()
        and name.isprintable()
        and not name.startswith((".", "-"))
        and "/" not in name
        and 0 < len(name.encode()) <= LONGEST_NAME
    )

"""The schema of the configuration: one dataclass per section, its constraints in `__post_init__`.

A new section is one file here, one section of conf/config.yaml and one field of `Config`, which is
imported from run.py: values, not the configuration, reach the packages below the stages.
"""

from rlhf_cli.config.schema.best_of_n import BestOfN
from rlhf_cli.config.schema.constraints import ConfigError
from rlhf_cli.config.schema.data import Data, LongText, Source
from rlhf_cli.config.schema.dpo import DPO, PairLoss
from rlhf_cli.config.schema.evaluation import (
    NLI_LABELS,
    Chains,
    Diversity,
    Evaluation,
    PromptSet,
    Rank,
    Suites,
    TaskEvaluation,
)
from rlhf_cli.config.schema.judge import Judge
from rlhf_cli.config.schema.model import LearningRates, Model
from rlhf_cli.config.schema.policy_gradient import (
    Average,
    Baseline,
    KLEstimator,
    KLPenalty,
    KLPlace,
    PolicyGradient,
    Ratio,
    Scale,
)
from rlhf_cli.config.schema.ppo import (
    KL,
    PPO,
    PTX,
    Alerts,
    KLController,
    KLStop,
    MissingEOS,
    MissingEOSMode,
    OldLogprobs,
    RolloutBatch,
    ValueInit,
    Watch,
    WatchBy,
)
from rlhf_cli.config.schema.raft import RAFT, RaftKeep, RaftSource
from rlhf_cli.config.schema.rationales import Check, Keep, Rationales
from rlhf_cli.config.schema.reward import Combine, Reward
from rlhf_cli.config.schema.rm import RM, Ties
from rlhf_cli.config.schema.runtime import TAKEN_FROM, Gather, Graphs, Runtime
from rlhf_cli.config.schema.save import Save
from rlhf_cli.config.schema.sft import SFT, Batching, LossOn, SelectBy
from rlhf_cli.config.schema.tasks import ShotsAs, Tasks
from rlhf_cli.config.schema.tiny_world import TinyWorld
from rlhf_cli.config.schema.tracking import Tracker, Tracking
from rlhf_cli.config.schema.training import Batch, Optim, Schedule, ScheduleKind

"""The words of the configuration: one dataclass a section, its laws in `__post_init__`.

Values and their explanations live in conf/*.yaml, never here. `Source` alone has defaults: its
instances are elements of lists, which YAML cannot complete.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from rlhf_cli.config.errors import UserError


class Stage(Enum):
    sft = "sft"
    rm = "rm"
    ppo = "ppo"
    evaluate = "evaluate"


class Batching(Enum):
    grouped = "grouped"
    packed = "packed"


class LossOn(Enum):
    response = "response"
    all = "all"


class SelectBy(Enum):
    last = "last"
    eval_loss = "eval_loss"
    rm_score = "rm_score"


class Ties(Enum):
    drop = "drop"
    soft = "soft"
    rao_kupper = "rao_kupper"
    davidson = "davidson"


class ScheduleKind(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class KLController(Enum):
    fixed = "fixed"
    adaptive = "adaptive"


class MissingEOSMode(Enum):
    none = "none"
    replace = "replace"
    subtract = "subtract"


class ValueInit(Enum):
    rm = "rm"
    sft = "sft"


class OldLogprobs(Enum):
    auto = "auto"
    sampler = "sampler"
    recompute = "recompute"


class LongText(Enum):
    drop = "drop"
    truncate = "truncate"


class Tracker(Enum):
    tensorboard = "tensorboard"
    wandb = "wandb"
    trackio = "trackio"


class Gather(Enum):
    auto = "auto"
    always = "always"
    never = "never"


class Graphs(Enum):
    auto = "auto"
    never = "never"


class Resume(Enum):
    auto = "auto"
    whole = "whole"
    never = "never"


class ConfigError(UserError):
    """A value that breaks a law; the message starts with the full key."""


def require(holds: bool, message: str) -> None:
    """Raise ConfigError(message) unless `holds`."""
    if not holds:
        raise ConfigError(message)


DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
MOST_PROCESSES = 256  # on one machine
SEEDS = 2**32  # what every library's generator takes
LONGEST_NAME = 255  # bytes of a folder's name


def is_folder_name(name: str) -> bool:
    """Whether `name` is one plain folder below another, on every file system and in every shell."""
    return (
        name == name.strip()
        and name.isprintable()
        and not name.startswith((".", "-"))
        and "/" not in name
        and 0 < len(name.encode()) <= LONGEST_NAME
    )


def _is_day(text: str) -> bool:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d}" == text
    except ValueError:
        return False


@dataclass(slots=True, kw_only=True)
class LearningRates:
    sft: float
    rm: float
    policy: float
    value: float


@dataclass(slots=True, kw_only=True)
class Model:
    path: str
    revision: str | None
    tokenizer: str | None
    trust_remote_code: bool
    attention: str
    gradient_checkpointing: bool
    lr: LearningRates


# What DeepSpeed's dictionary would say a second time, and where it comes from.
TAKEN_FROM = {
    "train_batch_size": "<stage>.batch",
    "train_micro_batch_size_per_gpu": "<stage>.batch.microbatch",
    "gradient_accumulation_steps": "<stage>.batch",
    "gradient_clipping": "<stage>.optim.grad_clip",
    "optimizer": "<stage>.optim",
    "scheduler": "<stage>.schedule",
    "bf16": "runtime.dtype",
    "fp16": "runtime.dtype",
}


@dataclass(slots=True, kw_only=True)
class Runtime:
    device: str
    dtype: str
    num_threads: int | None
    num_processes: int | None
    gather: Gather
    offload: bool
    graphs: Graphs
    timeout: float
    reference_path: bool
    compile: bool
    deepspeed: dict[str, Any] | None

    def __post_init__(self):
        require(
            DEVICES.fullmatch(self.device) is not None,
            f"runtime.device={self.device} is not one of auto, cpu, cuda, cuda:<number>, mps"
            + (": did you mean cuda?" if self.device.startswith(("gpu", "nvidia")) else ""),
        )
        known = ("auto", "float32", "bfloat16")
        require(self.dtype in known, f"runtime.dtype={self.dtype} is not one of {', '.join(known)}")
        require(
            self.num_threads is None or self.num_threads > 0,
            f"runtime.num_threads={self.num_threads} must be positive or null",
        )
        require(
            self.num_processes is None or self.num_processes > 0,
            f"runtime.num_processes={self.num_processes} must be positive or null",
        )
        require(
            self.num_processes is None or self.num_processes <= MOST_PROCESSES,
            f"runtime.num_processes={self.num_processes} must be at most {MOST_PROCESSES}: "
            "it counts the processes of one machine",
        )
        require(self.timeout > 0, f"runtime.timeout={self.timeout} must be positive (seconds)")
        for key, source in TAKEN_FROM.items():
            require(
                key not in (self.deepspeed or {}),
                f"runtime.deepspeed.{key} is taken from {source}: leave it out",
            )
        stage = ((self.deepspeed or {}).get("zero_optimization") or {}).get("stage")
        require(
            self.deepspeed is None or stage in (1, 2, 3),
            f"runtime.deepspeed.zero_optimization.stage={stage} is none of 1, 2, 3: "
            "choose runtime=zero1, zero2 or zero3, or runtime=ddp for whole copies",
        )
        require(
            not (self.compile and (self.reference_path or self.deepspeed is not None)),
            "runtime.compile=true is for plain torch on the fast path: "
            "leave out runtime.reference_path and ZeRO, or runtime.compile",
        )
        require(
            not (self.offload and stage == 3),
            "runtime.offload=true moves whole models; under ZeRO-3 choose runtime=zero3_offload",
        )


@dataclass(slots=True, kw_only=True)
class Save:
    every_steps: int | None
    every_minutes: float | None
    keep: int
    keep_replaced: int

    def __post_init__(self):
        require(
            self.every_steps is None or self.every_steps > 0,
            f"save.every_steps={self.every_steps} must be positive or null",
        )
        require(
            self.every_minutes is None or self.every_minutes > 0,
            f"save.every_minutes={self.every_minutes} must be positive or null",
        )
        require(self.keep > 0, f"save.keep={self.keep} must be at least 1")
        require(
            self.keep_replaced >= 0,
            f"save.keep_replaced={self.keep_replaced} must not be negative",
        )


@dataclass(slots=True, kw_only=True)
class Source:
    """One data source: `path` is a file, a folder saved by `datasets`, a hub id, or world:<role>.

    columns renames this project's field names to the data's own: {prompt: question}; numbers, as in
    {prompt: 0}, say that a csv or tsv file has no header. data_dir: folder inside a hub data set.
    weight is the share among the sources of a list; all weights null means "take all rows".
    unescape: backslash escapes in the texts become the characters they name.
    delimiter: one character between the cells of a csv or tsv, or "tab"; null: found.
    """

    path: str
    format: str = "auto"
    config: str | None = None
    data_dir: str | None = None
    split: str | None = None
    revision: str | None = None
    weight: float | None = None
    limit: int | None = None
    eval: bool = False
    unescape: bool = False
    delimiter: str | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.delimiter in ("tab", "\\t"):
            self.delimiter = "\t"
        require(
            self.delimiter is None or (len(self.delimiter) == 1 and self.delimiter not in '"\r\n '),
            f"delimiter={self.delimiter!r} of source {self.path} must be one character, or tab",
        )
        require(
            self.weight is None or self.weight > 0,
            f"weight={self.weight} of source {self.path} must be positive",
        )
        require(
            self.limit is None or self.limit > 0,
            f"limit={self.limit} of source {self.path} must be positive",
        )


@dataclass(slots=True, kw_only=True)
class Data:
    demonstrations: list[Source]
    comparisons: list[Source]
    prompts: list[Source]
    pretraining: list[Source]
    template: str
    system: str | None
    date: str | None
    max_prompt_tokens: int
    max_response_tokens: int
    long_prompts: LongText
    long_responses: LongText
    eval_fraction: float
    select_fraction: float
    max_bad_fraction: float
    strict: bool

    def __post_init__(self):
        require(
            self.date is None or _is_day(self.date),
            f"data.date={self.date} must be a day such as 2026-01-31, or null",
        )
        require(
            self.max_prompt_tokens > 0,
            f"data.max_prompt_tokens={self.max_prompt_tokens} must be positive",
        )
        require(
            self.max_response_tokens > 0,
            f"data.max_response_tokens={self.max_response_tokens} must be positive",
        )
        require(
            0 < self.eval_fraction < 1,
            f"data.eval_fraction={self.eval_fraction} must lie between 0 and 1",
        )
        require(
            self.select_fraction > 0 and self.eval_fraction + self.select_fraction < 1,
            f"data.select_fraction={self.select_fraction} must be positive and leave something to "
            f"train on beside data.eval_fraction={self.eval_fraction}: less than 1 together",
        )
        require(
            0 <= self.max_bad_fraction <= 1,
            f"data.max_bad_fraction={self.max_bad_fraction} must lie in [0, 1]",
        )


@dataclass(slots=True, kw_only=True)
class Batch:
    size: int
    microbatch: int | None
    max_tokens: int | None

    def __post_init__(self):
        require(self.size > 0, f"batch.size={self.size} must be positive")
        require_limits(self.microbatch, self.max_tokens)


def require_limits(microbatch: int | None, max_tokens: int | None) -> None:
    """A forward pass is limited by rows, by tokens, or by both."""
    for name, limit in (("microbatch", microbatch), ("max_tokens", max_tokens)):
        require(limit is None or limit > 0, f"batch.{name}={limit} must be positive or null")
    require(
        microbatch is not None or max_tokens is not None,
        "batch.microbatch and max_tokens are both null: one must limit a forward pass",
    )


@dataclass(slots=True, kw_only=True)
class Optim:
    lr: float
    betas: list[float]
    eps: float
    weight_decay: float
    grad_clip: float | None

    def __post_init__(self):
        require(self.lr > 0, f"optim.lr={self.lr} must be positive")
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            f"optim.betas={self.betas} must be two numbers in [0, 1)",
        )
        require(self.eps > 0, f"optim.eps={self.eps} must be positive")
        require(
            self.weight_decay >= 0, f"optim.weight_decay={self.weight_decay} must not be negative"
        )
        require(
            self.grad_clip is None or self.grad_clip > 0,
            f"optim.grad_clip={self.grad_clip} must be positive or null",
        )


@dataclass(slots=True, kw_only=True)
class Schedule:
    kind: ScheduleKind
    warmup: float
    final: float

    def __post_init__(self):
        require(
            0 <= self.warmup <= 1,
            f"schedule.warmup={self.warmup} is a share of the steps, in [0, 1]",
        )
        require(
            0 <= self.final <= 1, f"schedule.final={self.final} is a share of the peak, in [0, 1]"
        )


def require_steps(max_steps: int | None, stage: str) -> None:
    """A limit of a stage's steps, or none."""
    require(
        max_steps is None or max_steps > 0,
        f"{stage}.max_steps={max_steps} must be positive or null",
    )


@dataclass(slots=True, kw_only=True)
class SFT:
    epochs: int
    max_steps: int | None
    batch: Batch
    batching: Batching
    loss_on: LossOn
    dropout: float
    optim: Optim
    schedule: Schedule
    select_by: SelectBy
    reward_model: str | None

    def __post_init__(self):
        require(self.epochs > 0, f"sft.epochs={self.epochs} must be positive")
        require_steps(self.max_steps, "sft")
        require(0 <= self.dropout < 1, f"sft.dropout={self.dropout} must lie in [0, 1)")
        require(
            self.select_by is not SelectBy.rm_score or self.reward_model is not None,
            "sft.select_by=rm_score needs sft.reward_model=<folder of a reward model>",
        )


@dataclass(slots=True, kw_only=True)
class RM:
    epochs: int
    max_steps: int | None
    batch: Batch
    ties: Ties
    tie_param: float
    margin: float
    label_smoothing: float
    center_coef: float
    dropout: float
    optim: Optim
    schedule: Schedule

    def __post_init__(self):
        require(self.epochs > 0, f"rm.epochs={self.epochs} must be positive")
        require_steps(self.max_steps, "rm")
        require(self.margin >= 0, f"rm.margin={self.margin} must not be negative")
        require(
            0 <= self.label_smoothing < 0.5,
            f"rm.label_smoothing={self.label_smoothing} must lie in [0, 0.5)",
        )
        require(self.center_coef >= 0, f"rm.center_coef={self.center_coef} must not be negative")
        require(0 <= self.dropout < 1, f"rm.dropout={self.dropout} must lie in [0, 1)")
        require(
            self.ties is not Ties.rao_kupper or self.tie_param > 1,
            f"rm.tie_param={self.tie_param}: theta of Rao-Kupper must exceed 1",
        )
        require(
            self.ties is not Ties.davidson or self.tie_param > 0,
            f"rm.tie_param={self.tie_param}: nu of Davidson must be positive",
        )
        modelled = self.ties in (Ties.rao_kupper, Ties.davidson)
        require(
            not modelled or (self.margin == 0 and self.label_smoothing == 0),
            f"rm.ties={self.ties.name} models ties itself: set rm.margin=0 and rm.label_smoothing=0",
        )


@dataclass(slots=True, kw_only=True)
class PPOBatch:
    rollout: int
    minibatch: int
    microbatch: int | None
    max_tokens: int | None

    def __post_init__(self):
        for name in ("rollout", "minibatch"):
            size = getattr(self, name)
            require(size > 0, f"ppo.batch.{name}={size} must be positive")
        require_limits(self.microbatch, self.max_tokens)
        require(
            self.rollout % self.minibatch == 0,
            f"ppo.batch.rollout={self.rollout} is not a multiple of ppo.batch.minibatch={self.minibatch}",
        )


@dataclass(slots=True, kw_only=True)
class KL:
    coef: float
    controller: KLController
    target: float
    horizon: int

    def __post_init__(self):
        require(self.coef >= 0, f"ppo.kl.coef={self.coef} must not be negative")
        require(
            self.target > 0 and self.horizon > 0,
            "ppo.kl.target and ppo.kl.horizon must be positive",
        )


@dataclass(slots=True, kw_only=True)
class MissingEOS:
    mode: MissingEOSMode
    value: float

    def __post_init__(self):
        require(
            self.mode is not MissingEOSMode.subtract or self.value >= 0,
            f"ppo.missing_eos.value={self.value} is subtracted: it must not be negative",
        )


@dataclass(slots=True, kw_only=True)
class PTX:
    coef: float
    ratio: int

    def __post_init__(self):
        require(self.coef >= 0, f"ppo.ptx.coef={self.coef} must not be negative")
        require(self.ratio > 0, f"ppo.ptx.ratio={self.ratio} must be positive")


@dataclass(slots=True, kw_only=True)
class KLStop:
    iteration: float | None
    run: float | None

    def __post_init__(self):
        for name, limit in (("iteration", self.iteration), ("run", self.run)):
            require(
                limit is None or limit > 0, f"ppo.kl_stop.{name}={limit} must be positive or null"
            )


@dataclass(slots=True, kw_only=True)
class Alarms:
    eos_rate: float | None
    length: float | None
    entropy: float | None
    kl: float | None
    score_spread: float | None
    score_size: float | None

    def __post_init__(self):
        require(
            self.eos_rate is None or 0 <= self.eos_rate <= 1,
            f"ppo.alarms.eos_rate={self.eos_rate} is a share, in [0, 1], or null",
        )
        require(
            self.length is None or self.length > 1,
            f"ppo.alarms.length={self.length} is a factor: it must exceed 1, or be null",
        )
        for name in ("entropy", "kl", "score_spread", "score_size"):
            limit = getattr(self, name)
            require(
                limit is None or limit >= 0,
                f"ppo.alarms.{name}={limit} must not be negative, or be null",
            )


@dataclass(slots=True, kw_only=True)
class PPO:
    total_episodes: int
    max_steps: int | None
    batch: PPOBatch
    inner_epochs: int
    temperature: float
    old_logprobs: OldLogprobs
    kl: KL
    missing_eos: MissingEOS
    gamma: float
    gae_lambda: float
    clip_eps: float
    value_clip_eps: float | None
    vf_coef: float
    whiten_rewards: bool
    whiten_advantages: bool
    value_init: ValueInit
    optim: Optim
    value_optim: Optim
    schedule: Schedule
    ema_decay: float | None
    ptx: PTX
    kl_stop: KLStop
    alarms: Alarms

    def __post_init__(self):
        require(
            self.total_episodes >= self.batch.rollout,
            f"ppo.total_episodes={self.total_episodes} is less than one rollout "
            f"(ppo.batch.rollout={self.batch.rollout})",
        )
        require_steps(self.max_steps, "ppo")
        require(self.inner_epochs > 0, f"ppo.inner_epochs={self.inner_epochs} must be positive")
        require(self.temperature > 0, f"ppo.temperature={self.temperature} must be positive")
        require(0 < self.gamma <= 1, f"ppo.gamma={self.gamma} must lie in (0, 1]")
        require(0 <= self.gae_lambda <= 1, f"ppo.gae_lambda={self.gae_lambda} must lie in [0, 1]")
        require(0 < self.clip_eps < 1, f"ppo.clip_eps={self.clip_eps} must lie in (0, 1)")
        require(
            self.value_clip_eps is None or self.value_clip_eps > 0,
            f"ppo.value_clip_eps={self.value_clip_eps} must be positive or null",
        )
        require(self.vf_coef >= 0, f"ppo.vf_coef={self.vf_coef} must not be negative")
        require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"ppo.ema_decay={self.ema_decay} must lie in (0, 1), or null",
        )


@dataclass(slots=True, kw_only=True)
class Evaluation:
    prompts: int
    best_of_n: int
    batch: int

    def __post_init__(self):
        require(self.prompts > 1, f"evaluation.prompts={self.prompts} must be at least 2")
        require(self.best_of_n >= 0, f"evaluation.best_of_n={self.best_of_n} must not be negative")
        require(self.batch > 0, f"evaluation.batch={self.batch} must be positive")


@dataclass(slots=True, kw_only=True)
class Parents:
    sft: str | None
    rm: str | None


@dataclass(slots=True, kw_only=True)
class Tracking:
    every: int
    trackers: list[Tracker]
    project: str

    def __post_init__(self):
        require(self.every > 0, f"tracking.every={self.every} must be positive")
        require(bool(self.project), "tracking.project='' must be a name")


@dataclass(slots=True, kw_only=True)
class World:
    demonstrations: int
    comparisons: int
    prompts: int
    held_out_prompts: int
    pretraining: int
    completions: list[int]
    noise: float
    tie_margin: float
    length_bias: float
    format_bias: float

    def __post_init__(self):
        require(
            len(self.completions) == 2 and 2 <= self.completions[0] <= self.completions[1] <= 9,
            f"world.completions={self.completions} must be [fewest, most] within 2 and 9",
        )
        require(self.noise >= 0, f"world.noise={self.noise} must not be negative")
        require(self.tie_margin >= 0, f"world.tie_margin={self.tie_margin} must not be negative")
        require(
            min(self.demonstrations, self.comparisons, self.prompts) >= 20,
            "world.demonstrations, world.comparisons and world.prompts must be at least 20",
        )
        require(
            min(self.held_out_prompts, self.pretraining) >= 0,
            "world.held_out_prompts and world.pretraining must not be negative",
        )


@dataclass(slots=True, kw_only=True)
class Config:
    name: str
    runs_dir: str
    stage: list[Stage]
    seed: int
    dry_run: bool
    resume: Resume
    parents: Parents
    model: Model
    data: Data
    runtime: Runtime
    sft: SFT
    rm: RM
    ppo: PPO
    evaluation: Evaluation
    samples: int
    save: Save
    tracking: Tracking
    world: World

    def __post_init__(self):
        require(self.samples >= 0, f"samples={self.samples} must not be negative")
        require(0 <= self.seed < SEEDS, f"seed={self.seed} must lie between 0 and {SEEDS - 1}")
        require(
            is_folder_name(self.name),
            f"name={self.name[:60]!r} must be a plain folder name: without /, control characters, a "
            f". or - in front or spaces around it, of at most {LONGEST_NAME} bytes",
        )
        require(
            bool(self.runs_dir.strip()) and self.runs_dir.isprintable(),
            f"runs_dir={self.runs_dir!r} must name a folder (runs_dir=. is this one)",
        )
        require(
            self.ppo.ptx.coef == 0 or bool(self.data.pretraining),
            "ppo.ptx.coef > 0 needs data.pretraining: texts to draw from",
        )

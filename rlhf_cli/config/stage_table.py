"""The table of stages, read by the command, the planner, the evaluation, the help and completion.

Adding a stage is one row here, one section of the schema and of conf/config.yaml, and one file. A stage
that parents.<stage> can replace has a field of `Parents` too. A stage's module has two functions:

    run(cfg, inputs, out) -> metrics
        does the work. `inputs` maps a parent's name to its folder (artifacts.store.model_folder
        gives the model inside). `out` is the work folder: write model/ there and give it to the
        Recorder, which writes metrics.jsonl. The returned numbers go into the manifest.
        The evaluate stage leaves its rows with report.table.write_table(out, rows, title=...).
    preview(cfg, inputs) -> stages.dry_run.Preview
        for dry_run: loads and tokenises one batch, counts steps, shows one rendered example.
        `inputs` holds only the parents that exist already.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from rlhf_cli.config.schema import KLController, MissingEOSMode, ScheduleKind, SelectBy, Ties
from rlhf_cli.config.schema.run import Config, Parents


@dataclass(slots=True, kw_only=True)
class StageSpec:
    """config(cfg): dotted sections whose change makes the result another one. data(cfg): roles of
    the data it reads. models(cfg): role -> (path, revision) of models that are not stages.
    optional: roles of its data that may have no sources.

    parents: the stages whose results it reads. required: all of them must exist; else it takes those
    that do. headline: the metrics that a person is shown first. default: part of stage=all. candidate:
    the name under which the evaluation compares its model, None for a stage that trains no policy.
    tasks: it evaluates the tasks that are held out.
    """

    name: str
    label: str
    title: str
    module: str
    config: Callable[[Config], tuple[str, ...]]
    data: Callable[[Config], tuple[str, ...]]
    models: Callable[[Config], dict[str, tuple[str, str | None]]]
    parents: tuple[str, ...]
    required: bool
    headline: tuple[str, ...]
    optional: tuple[str, ...] = ()
    default: bool = True
    candidate: str | None = None
    tasks: bool = False


# What never changes a result: model.lr reaches the stages through their own optim.lr, a run may move
# to another machine, and how much of a step is computed at once changes its rounding alone.
NOT_RESULTS = (
    "name", "runs_dir", "stage", "dry_run", "samples", "tracking", "parents", "model.lr",
    "model.gradient_checkpointing", "data.max_bad_fraction", "data.strict",
    "runtime.device", "runtime.num_threads", "runtime.num_processes", "runtime.gather",
    "runtime.offload", "runtime.cuda_graphs", "runtime.timeout", "runtime.deepspeed", "save", "resume",
    "sft.batch.microbatch", "sft.batch.max_tokens", "rm.batch.microbatch", "rm.batch.max_tokens",
    "ppo.batch.microbatch", "ppo.batch.max_tokens", "evaluation.batch", "ppo.alerts",
)  # fmt: skip

# Known by what they name: the models of a stage, the template, the tasks of a mixture and those that are
# evaluated; and the keys of its data (data/spec.py).
BY_CONTENT = (
    "model.path", "model.revision", "model.tokenizer", "sft.reward_model", "data.template",
    "tasks.files", "tasks.folder", "tasks.hold_out", "tasks.exclusive", "evaluation.tasks.also",
)  # fmt: skip

TEXT = (
    "seed", "runtime.dtype", "runtime.reference_implementation",
    "model.trust_remote_code", "model.attention", "data.system", "data.date",
    "data.max_prompt_tokens", "data.max_response_tokens", "data.long_prompts",
)  # fmt: skip
TRAINED = (*TEXT, "runtime.compile")


def without_effect(cfg: Config) -> tuple[str, ...]:
    """Return keys and sections whose change gives the same result under this configuration."""
    idle = {
        "rm.tie_param": cfg.rm.ties in (Ties.drop, Ties.soft),
        "ppo.kl.target": cfg.ppo.kl.controller is KLController.fixed,
        "ppo.kl.horizon": cfg.ppo.kl.controller is KLController.fixed,
        "ppo.missing_eos.value": cfg.ppo.missing_eos.mode is MissingEOSMode.none,
        "ppo.ptx.ratio": cfg.ppo.ptx.coef == 0,
        "evaluation.tasks": not cfg.tasks.files,
        "evaluation.tasks.temperature": cfg.evaluation.tasks.samples == 1,
        "tasks.shots_as": not cfg.tasks.files,
    }
    for name in ("sft", "rm", "ppo"):
        schedule = getattr(cfg, name).schedule
        idle[f"{name}.schedule.final"] = schedule.kind is ScheduleKind.constant
    return (*NOT_RESULTS, *BY_CONTENT, *(key for key, is_idle in idle.items() if is_idle))


def _evaluate_data(cfg: Config) -> tuple[str, ...]:
    """Without any prompts the tasks alone are evaluated, where there are tasks."""
    has_prompts = cfg.data.prompts or cfg.data.comparisons
    return ("prompts",) if has_prompts or not cfg.tasks.files else ()


def _base(cfg: Config) -> dict[str, tuple[str, str | None]]:
    return {"base": (cfg.model.path, cfg.model.revision)}


def _sft_config(cfg: Config) -> tuple[str, ...]:
    """Selection by reward-model score judges answers to as many prompts as the evaluation has."""
    judged = ("evaluation.prompts",) if cfg.sft.select_by is SelectBy.rm_score else ()
    return (*TRAINED, "data.long_responses", "sft", *judged)


def _sft_models(cfg: Config) -> dict[str, tuple[str, str | None]]:
    """Return the base model, the tokenizer where it is another's, and the judge where there is one."""
    found = _base(cfg)
    if cfg.model.tokenizer is not None:
        found["tokenizer"] = (cfg.model.tokenizer, None)
    if cfg.sft.select_by is SelectBy.rm_score and cfg.sft.reward_model is not None:
        found["reward_model"] = (cfg.sft.reward_model, None)
    return found


def _ppo_config(cfg: Config) -> tuple[str, ...]:
    """Prompts have no responses; pretraining texts have the room of both."""
    texts = ("data.long_responses",) if cfg.ppo.ptx.coef > 0 else ()
    return (*TRAINED, "ppo", *texts)


def _ppo_data(cfg: Config) -> tuple[str, ...]:
    return ("prompts", "pretraining") if cfg.ppo.ptx.coef > 0 else ("prompts",)


_TRAINING = (
    StageSpec(
        name="sft",
        label="SFT",
        title="imitate the demonstrations",
        module="rlhf_cli.stages.sft",
        config=_sft_config,
        data=lambda cfg: ("demonstrations",),
        models=_sft_models,
        parents=(),
        required=True,
        headline=("sft/loss", "sft/eval_loss"),
        candidate="SFT",
    ),
    StageSpec(
        name="rm",
        label="reward model",
        title="learn which response a person prefers",
        module="rlhf_cli.stages.rm",
        config=lambda cfg: (*TRAINED, "data.long_responses", "rm"),
        data=lambda cfg: ("comparisons", "demonstrations"),
        models=lambda cfg: {},
        parents=("sft",),
        required=True,
        headline=("rm/loss", "rm/accuracy"),
        optional=("demonstrations",),
    ),
    StageSpec(
        name="ppo",
        label="PPO",
        title="raise the score, close to the SFT model",
        module="rlhf_cli.stages.ppo.stage",
        config=_ppo_config,
        data=_ppo_data,
        models=lambda cfg: {},
        parents=("sft", "rm"),
        required=True,
        headline=("objective/scores", "objective/kl", "objective/eos_rate"),
        candidate="PPO",
    ),
)
_EVALUATE = StageSpec(
    name="evaluate",
    label="evaluate",
    title="base, SFT, PPO and best-of-n side by side",
    module="rlhf_cli.stages.evaluate",
    config=lambda cfg: (*TEXT, "evaluation", "tasks.shots_as", "data.eval_fraction"),
    data=_evaluate_data,
    models=_base,
    parents=tuple(row.name for row in _TRAINING),
    required=False,
    headline=(),
    tasks=True,
)
STAGES: Mapping[str, StageSpec] = MappingProxyType({r.name: r for r in (*_TRAINING, _EVALUATE)})
REPLACEABLE = tuple(field.name for field in fields(Parents))  # by parents.<stage>

"""The table of stages, read by the command, the planner, the evaluation, the help and completion.

Adding a stage is one row here, one section of the schema and of conf/config.yaml, and one file. A stage
that parents.<stage> can replace has a field of `Parents` too. A stage's module, or the object that
"module:name" names, has two functions:

    run(cfg, inputs, out) -> metrics
        does the work. `inputs` maps a parent's name to its folder (artifacts.store.model_folder
        gives the model inside). `out` is the work folder: write model/ there and give it to the
        Recorder, which writes metrics.jsonl. The returned numbers go into the manifest.
        The evaluate stage leaves its rows with report.table.write_table(out, rows, title=...).
    preview(cfg, inputs) -> stages.dry_run.Preview
        for dry_run: loads and tokenises one batch, counts steps, shows one rendered example.
        `inputs` holds only the parents that exist already.
"""

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

from rlhf_cli.config import evaluate_stage
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.judges import CHECK
from rlhf_cli.config.result_keys import POLICY_GRADIENTS, RAFTS
from rlhf_cli.config.schema import RaftSource, SelectBy, WatchBy
from rlhf_cli.config.schema.run import Config, Parents
from rlhf_cli.config.stage_spec import TEXT, Makes, StageSpec, TasksRead, base_model

TRAINED = (*TEXT, "runtime.compile")
OF_RATIONALES = ("rationales", "tasks.shots_as", "data.eval_fraction", "data.select_fraction")


def _watched_by(cfg: Config, name: str) -> dict[str, tuple[str, str | None]]:
    """Return the reward model that chooses among the weights of a policy, where there is one."""
    watch = getattr(cfg, name).watch
    if watch.every is None or watch.by is WatchBy.score or cfg.parents.check is None:
        return {}
    return {CHECK: (cfg.parents.check, None)}


def _with_tokenizer(cfg: Config) -> dict[str, tuple[str, str | None]]:
    found = base_model(cfg)
    if cfg.model.tokenizer is not None:
        found["tokenizer"] = (cfg.model.tokenizer, None)
    return found


def _sft_config(cfg: Config) -> tuple[str, ...]:
    """Selection by reward-model score judges answers to as many prompts as the evaluation has."""
    judged = ("evaluation.prompts", "reward") if cfg.sft.select_by is SelectBy.rm_score else ()
    return (*TRAINED, "data.long_responses", "sft", *judged)


def _sft_models(cfg: Config) -> dict[str, tuple[str, str | None]]:
    """Return the base model, the tokenizer where it is another's, and the judge where there is one."""
    found = _with_tokenizer(cfg)
    if cfg.sft.select_by is SelectBy.rm_score and cfg.sft.reward_model is not None:
        found["reward_model"] = (cfg.sft.reward_model, None)
    return found


def _ppo_config(cfg: Config) -> tuple[str, ...]:
    """Prompts have no responses; pretraining texts have the room of both."""
    texts = ("data.long_responses",) if cfg.ppo.ptx.coef > 0 else ()
    return (*TRAINED, "ppo", "reward", *texts)


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
        parents=lambda cfg: (),
        required=True,
        makes=Makes.policy,
        headline=("sft/loss", "sft/eval_loss"),
    ),
    StageSpec(
        name="rm",
        label="reward model",
        title="learn which response a person prefers",
        module="rlhf_cli.stages.rm",
        config=lambda cfg: (*TRAINED, "data.long_responses", "rm"),
        data=lambda cfg: ("comparisons", "demonstrations"),
        models=lambda cfg: {},
        parents=lambda cfg: ("sft",),
        required=True,
        makes=Makes.reward_model,
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
        models=lambda cfg: _watched_by(cfg, "ppo"),
        parents=lambda cfg: ("sft", "rm"),
        required=True,
        makes=Makes.policy,
        headline=("objective/scores", "objective/kl", "objective/eos_rate"),
    ),
)

_TITLES = {
    "reinforce": ("REINFORCE", "raise the score against a running mean, without a value model"),
    "rloo": ("RLOO", "raise the score against the other responses to a prompt"),
    "grpo": ("GRPO", "raise the score within each group of responses to a prompt"),
}


def _policy_gradient(name: str) -> StageSpec:
    label, title = _TITLES[name]
    return StageSpec(
        name=name,
        label=label,
        title=title,
        module=f"rlhf_cli.stages.policy_gradient.stage:{name}",
        config=lambda cfg: (*TRAINED, name, "reward"),
        data=lambda cfg: ("prompts",),
        models=lambda cfg: _watched_by(cfg, name),
        parents=lambda cfg: ("sft", "rm"),
        required=True,
        makes=Makes.policy,
        headline=("objective/scores", "objective/kl", "objective/eos_rate"),
        default=False,
    )


_RAFTS = {
    "raft": ("RAFT", "learn from one's own samples that the reward model prefers, in rounds"),
    "raft_random": (
        "RAFT random",
        "learn from one's own samples whatever their score, to compare with",
    ),
    "sft_chosen": ("SFT on chosen", "imitate the preferred responses of the comparisons"),
}


def _raft(name: str) -> StageSpec:
    """Return the stage of a section, which learns from its own samples or from data.comparisons."""
    label, title = _RAFTS[name]
    samples = lambda cfg: getattr(cfg, name).source is RaftSource.samples  # noqa: E731
    return StageSpec(
        name=name,
        label=label,
        title=title,
        module=f"rlhf_cli.stages.raft.stage:{name}",
        config=lambda cfg: (*TRAINED, name, "reward" if samples(cfg) else "data.long_responses"),
        data=lambda cfg: ("prompts",) if samples(cfg) else ("comparisons",),
        models=lambda cfg: {},
        parents=lambda cfg: ("sft", "rm") if samples(cfg) else ("sft",),
        required=True,
        makes=Makes.policy,
        headline=(f"{name}/loss", f"{name}/scores", f"{name}/kept_scores"),
        default=False,
    )


_METHODS = (
    *map(_policy_gradient, POLICY_GRADIENTS),
    StageSpec(
        name="dpo",
        label="DPO",
        title="raise preferred responses over others, without a reward model",
        module="rlhf_cli.stages.dpo",
        config=lambda cfg: (*TRAINED, "data.long_responses", "dpo"),
        data=lambda cfg: ("comparisons",),
        models=lambda cfg: {},
        parents=lambda cfg: ("sft",),
        required=True,
        makes=Makes.policy,
        headline=("dpo/loss", "rewards/accuracies", "dpo/accuracy"),
        default=False,
    ),
    *map(_raft, RAFTS),
)


def _evaluated(cfg: Config) -> tuple[str, ...]:
    """Return every stage that makes a model; evaluation.against must be a policy among them."""
    _policy(cfg.evaluation.against, "evaluation.against")
    return tuple(row.name for row in (*_TRAINING, *_METHODS))


_EVALUATE = StageSpec(
    name="evaluate",
    label="evaluate",
    title="all models and best-of-n side by side",
    module="rlhf_cli.stages.evaluate.stage",
    config=evaluate_stage.config,
    data=evaluate_stage.data,
    models=evaluate_stage.models,
    parents=_evaluated,
    required=False,
    makes=Makes.report,
    headline=(),
    optional=("demonstrations", "comparisons"),
    tasks=evaluate_stage.tasks,
    files=evaluate_stage.files,
)


def _policy(of: str, key: str) -> tuple[str, ...]:
    """Return the stage whose policy a key names; none for the base model."""
    policies = [row.name for row in (*_TRAINING, *_METHODS) if row.makes is Makes.policy]
    if of not in ("base", *policies):
        raise UserError(f"{key}={of} is none of base, {', '.join(policies)}")
    return () if of == "base" else (of,)


def _writes_rationales(cfg: Config) -> tuple[str, ...]:
    return _policy(cfg.rationales.of, "rationales.of")


def _rationales_models(cfg: Config) -> dict[str, tuple[str, str | None]]:
    """The base model where it writes, and the scorer where it is another model."""
    found = {} if _writes_rationales(cfg) else _with_tokenizer(cfg)
    other = cfg.rationales.scorer != "same"
    return found | ({"scorer": (cfg.rationales.scorer, None)} if other else {})


_RATIONALES = StageSpec(
    name="rationales",
    label="rationales",
    title="write chains of thought to known answers, and check them",
    module="rlhf_cli.stages.rationales",
    config=lambda cfg: (*TEXT, *OF_RATIONALES),
    data=lambda cfg: (),
    models=_rationales_models,
    parents=_writes_rationales,
    required=True,
    makes=Makes.data,
    headline=("rationales/generated", "rationales/kept", "rationales/gain"),
    default=False,
    tasks=lambda cfg: TasksRead.trained,
)
_BEST_OF_N = StageSpec(
    name="best_of_n",
    label="best-of-n",
    title="keep the response that the reward model prefers, without training",
    module="rlhf_cli.stages.best_of_n",
    config=lambda cfg: (*TEXT, "best_of_n", "reward"),
    data=lambda cfg: ("prompts",),
    models=lambda cfg: _with_tokenizer(cfg) if cfg.best_of_n.of == "base" else {},
    parents=lambda cfg: (*_policy(cfg.best_of_n.of, "best_of_n.of"), "rm"),
    required=True,
    makes=Makes.data,
    headline=("best_of_n/scores", "best_of_n/best_scores", "best_of_n/kept"),
    default=False,
)
STAGES: Mapping[str, StageSpec] = MappingProxyType(
    {row.name: row for row in (*_TRAINING, *_METHODS, _EVALUATE, _RATIONALES, _BEST_OF_N)}
)
# by parents.<stage>; parents.check is no stage
REPLACEABLE = tuple(field.name for field in fields(Parents) if field.name in STAGES)

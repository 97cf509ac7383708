"""The table of stages, read by the command, the pipeline, the help and the tests.

Adding a stage is one row here, one YAML section, one file. A stage's module has two functions:

    run(cfg, inputs, out) -> metrics
        does the work. `inputs` maps a parent's role to its folder (artifacts.store.model_folder
        gives the model inside). `out` is the work folder: write model/ there and give it to the
        Recorder, which writes metrics.jsonl. The returned numbers go into the manifest.
        The evaluate stage leaves its rows with report.table.write_table(out, rows, title=...).
    preview(cfg, inputs) -> report.preview.Preview
        for dry_run: loads and tokenises one batch, counts steps, shows one rendered example.
        `inputs` holds only the parents that exist already.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rlhf_cli.config.schema import Config, SelectBy


@dataclass(slots=True, kw_only=True)
class StageSpec:
    """config(cfg): dotted sections whose change makes the result another one. data(cfg): roles of
    the data it reads. models(cfg): role -> (path, revision) of models that are not stages.
    optional: roles of its data that may have no sources.

    parents: role -> stage. required: all parents must exist; else it takes those that do.
    headline: the metrics that a person is shown first.
    """

    name: str
    title: str
    module: str
    config: Callable[[Config], tuple[str, ...]]
    data: Callable[[Config], tuple[str, ...]]
    models: Callable[[Config], dict[str, tuple[str, str | None]]]
    parents: Mapping[str, str]
    required: bool
    headline: tuple[str, ...]
    optional: tuple[str, ...] = ()


# What never changes a result: model.lr reaches the stages through their own optim.lr, and a run
# may move to another machine.
NOT_RESULTS = (
    "name", "runs_dir", "stage", "dry_run", "samples", "tracking", "parents", "model.lr",
    "runtime.device", "runtime.num_threads", "runtime.num_processes", "runtime.gather",
    "runtime.offload", "runtime.graphs", "runtime.timeout", "runtime.deepspeed", "save", "resume",
)  # fmt: skip

TEXT = (
    "seed", "runtime.dtype", "runtime.reference_path", "runtime.compile",
    "model.path", "model.revision", "model.tokenizer", "model.trust_remote_code",
    "model.attention", "model.gradient_checkpointing",
    "data.template", "data.system", "data.date",
    "data.max_prompt_tokens", "data.max_response_tokens",
    "data.long_prompts", "data.long_responses", "data.eval_fraction", "data.select_fraction",
    "data.max_bad_fraction", "data.strict",
)  # fmt: skip


def _base(cfg: Config) -> dict[str, tuple[str, str | None]]:
    return {"base": (cfg.model.path, cfg.model.revision)}


def _sft_config(cfg: Config) -> tuple[str, ...]:
    """Selection by reward-model score judges answers to as many prompts as the evaluation has."""
    judged = ("evaluation.prompts",) if cfg.sft.select_by is SelectBy.rm_score else ()
    return (*TEXT, "sft", *judged)


def _sft_models(cfg: Config) -> dict[str, tuple[str, str | None]]:
    judge = cfg.sft.reward_model
    return _base(cfg) | ({"reward_model": (judge, None)} if judge else {})


def _ppo_data(cfg: Config) -> tuple[str, ...]:
    return ("prompts", "pretraining") if cfg.ppo.ptx.coef > 0 else ("prompts",)


_ROWS = (
    StageSpec(
        name="sft",
        title="imitate the demonstrations",
        module="rlhf_cli.stages.sft",
        config=_sft_config,
        data=lambda cfg: ("demonstrations",),
        models=_sft_models,
        parents={},
        required=True,
        headline=("sft/loss", "sft/eval_loss"),
    ),
    StageSpec(
        name="rm",
        title="learn which response a person prefers",
        module="rlhf_cli.stages.rm",
        config=lambda cfg: (*TEXT, "rm"),
        data=lambda cfg: ("comparisons", "demonstrations"),
        models=lambda cfg: {},
        parents={"sft": "sft"},
        required=True,
        headline=("rm/loss", "rm/accuracy"),
        optional=("demonstrations",),
    ),
    StageSpec(
        name="ppo",
        title="raise the score, on a leash",
        module="rlhf_cli.stages.ppo.stage",
        config=lambda cfg: (*TEXT, "ppo"),
        data=_ppo_data,
        models=lambda cfg: {},
        parents={"sft": "sft", "rm": "rm"},
        required=True,
        headline=("objective/scores", "objective/kl", "objective/eos_rate"),
    ),
    StageSpec(
        name="evaluate",
        title="base, SFT, PPO and best-of-n side by side",
        module="rlhf_cli.stages.evaluate",
        config=lambda cfg: (*TEXT, "evaluation"),
        data=lambda cfg: ("prompts",),
        models=_base,
        parents={"sft": "sft", "rm": "rm", "ppo": "ppo"},
        required=False,
        headline=(),
    ),
)
STAGES: Mapping[str, StageSpec] = MappingProxyType({row.name: row for row in _ROWS})

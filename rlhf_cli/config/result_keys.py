"""Which keys cannot change a stage's result, or are known by the content of what they name."""

from rlhf_cli.config.schema import (
    Check,
    Combine,
    KLController,
    KLPlace,
    MissingEOSMode,
    RaftKeep,
    RaftSource,
    ScheduleKind,
    Ties,
)
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.suites import CLASSIFIERS, SECTION, SUITES, suite_files

POLICY_GRADIENTS = ("reinforce", "rloo", "grpo")  # sections that share a schema
RAFTS = ("raft", "raft_random", "sft_chosen")  # and these another
# What never changes a result: model.lr reaches the stages through their own optim.lr, a run may move
# to another machine, and how much of a step is computed at once changes its rounding alone.
NOT_RESULTS = (
    "name", "runs_dir", "stage", "dry_run", "samples", "tracking", "parents", "model.lr", "data.tasks",
    "model.gradient_checkpointing", "data.max_bad_fraction", "data.strict",
    "runtime.device", "runtime.num_threads", "runtime.num_processes", "runtime.gather",
    "runtime.offload", "runtime.cuda_graphs", "runtime.timeout", "runtime.deepspeed", "save", "resume",
    "sft.batch.microbatch", "sft.batch.max_tokens", "rm.batch.microbatch", "rm.batch.max_tokens",
    "dpo.batch.microbatch", "dpo.batch.max_tokens",
    "evaluation.batch", "judge.parallel", "rationales.batch", "best_of_n.batch",
    *(
        f"{name}.{key}"
        for name in ("ppo", *POLICY_GRADIENTS)
        for key in ("batch.microbatch", "batch.max_tokens", "alerts")
    ),
    *(
        f"{name}.{key}"
        for name in RAFTS
        for key in ("batch.microbatch", "batch.max_tokens", "sample_batch")
    ),
)  # fmt: skip

# Known by what they name: the models of a stage, the template, the tasks of a mixture and those that are
# evaluated, the probes; and the keys of its data (data/spec.py).
BY_CONTENT = (
    "model.path", "model.revision", "model.tokenizer", "sft.reward_model", "data.template",
    "tasks.files", "tasks.folder", "tasks.hold_out", "tasks.train", "tasks.exclusive",
    "evaluation.tasks.also", "evaluation.judges", "rationales.scorer",
    "evaluation.probes", *(f"{SECTION}.{name}" for name in (*SUITES, *CLASSIFIERS)),
    "evaluation.diversity.embedder", "evaluation.diversity.nli",
)  # fmt: skip


def without_effect(cfg: Config) -> tuple[str, ...]:
    """Return keys and sections whose change gives the same result under this configuration."""
    suites = suite_files(cfg.evaluation.suites)
    idle = {
        SECTION: not suites,
        **dict.fromkeys(("judge.url", "judge.chat", "judge.question"), cfg.judge.model is None),
        f"{SECTION}.samples": not suites.keys() & {"toxicity", "bias"},
        f"{SECTION}.persona": "toxicity" not in suites,
        "ppo.kl.target": cfg.ppo.kl.controller is KLController.fixed,
        "ppo.kl.horizon": cfg.ppo.kl.controller is KLController.fixed,
        "ppo.ptx.ratio": cfg.ppo.ptx.coef == 0,
        "evaluation.tasks": not cfg.tasks.files,
        "evaluation.diversity.inputs": cfg.evaluation.diversity.samples == 0,
        "evaluation.diversity.vocab": cfg.evaluation.diversity.samples == 0,
        "evaluation.tasks.temperature": cfg.evaluation.tasks.samples == 1,
        "rationales.max_tokens": Check.length not in cfg.rationales.checks,
        "rationales.gain": Check.likelihood not in cfg.rationales.checks,
    }
    for name in ("ppo", *POLICY_GRADIENTS):
        mode = getattr(cfg, name).missing_eos.mode
        idle[f"{name}.missing_eos.value"] = mode is MissingEOSMode.none
        never = getattr(cfg, name).watch.every is None
        idle |= {f"{name}.watch.{key}": never for key in ("prompts", "by", "kl_budget")}
    for name in POLICY_GRADIENTS:
        own = getattr(cfg, name)
        idle[f"{name}.kl.place"] = not own.has_reference
        in_loss = own.has_reference and own.kl.place is KLPlace.loss
        idle |= {f"{name}.kl.{key}": not in_loss for key in ("estimator", "weighted")}
        idle[f"{name}.max_extra"] = not own.skip_uniform
    for name in ("rm", "dpo"):
        idle[f"{name}.tie_param"] = getattr(cfg, name).ties in (Ties.drop, Ties.soft)
    for name in RAFTS:
        own = getattr(cfg, name)
        idle[f"{name}.top"] = own.keep is not RaftKeep.top
        if own.source is RaftSource.comparisons:
            of_samples = ("rounds", "prompts", "samples", "keep", "top", "temperature")
            idle |= {f"{name}.{key}": True for key in of_samples}
    idle["reward.penalty"] = cfg.reward.combine is not Combine.penalised
    for name in ("sft", "rm", "ppo", *POLICY_GRADIENTS, "dpo", *RAFTS):
        schedule = getattr(cfg, name).schedule
        idle[f"{name}.schedule.final"] = schedule.kind is ScheduleKind.constant
    return (*NOT_RESULTS, *BY_CONTENT, *(key for key, is_idle in idle.items() if is_idle))

"""What is known before anything is trained: device, template, models and rows of all stages that run.

torch is not imported here. What only a worker can know, such as lengths in tokens, it checks itself.
"""

from importlib.metadata import version
from pathlib import Path

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.judges import language_judge, reward_judges
from rlhf_cli.config.positions import num_positions, require_positions
from rlhf_cli.config.schema import NLI_LABELS, Runtime, SelectBy
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import StageSpec, TasksRead
from rlhf_cli.config.suites import classifiers
from rlhf_cli.data.embedded import task_of
from rlhf_cli.data.probes import read_probes
from rlhf_cli.data.report import NO_ROWS
from rlhf_cli.data.spec import ROLES
from rlhf_cli.data.template_texts import template_file
from rlhf_cli.launch.local_world import count_gpus
from rlhf_cli.pipeline.model_folders import (
    external,
    local_config,
    require_classifier,
    require_model,
    require_text_model,
    shipped,
)
from rlhf_cli.stages.reading import sources_of, spec_of

DRIVER = Path("/dev/nvidiactl")


def require(cfg: Config, specs: list[StageSpec]) -> None:
    """Refuse what would stop one of these stages later; raise UserError."""
    if not specs:
        return
    require_device(cfg.runtime)
    template_file(cfg.data.template)
    model = cfg.model
    require_model("model.path", model.path, model, has_tokenizer=model.tokenizer is None)
    if cfg.sft.select_by is SelectBy.rm_score and any(spec.name == "sft" for spec in specs):
        external("sft.reward_model", str(cfg.sft.reward_model), "rm", model)
    if any("scorer" in spec.models(cfg) for spec in specs):
        external("rationales.scorer", cfg.rationales.scorer, "sft", model)
    require_judges(cfg, specs)
    compared = {role for spec in specs for role in spec.models(cfg)}
    if "embedder" in compared:
        require_text_model("evaluation.diversity.embedder", str(cfg.evaluation.diversity.embedder))
    if "nli" in compared:
        place = str(cfg.evaluation.diversity.nli)
        require_text_model("evaluation.diversity.nli", place, labels=NLI_LABELS)
    roles = roles_of(cfg, specs)
    for role in roles:
        require_source(cfg, role)
    for role in roles:
        if role != "prompts" or cfg.data.prompts or "comparisons" not in roles:
            require_rows(cfg, role)  # prompts of the comparisons are as good as those are
    for spec in specs:
        if which := spec.tasks(cfg):
            _require_tasks(cfg, which, alone=not spec.data(cfg))
        files = spec.files(cfg)
        if probes := files.pop("evaluation.probes", None):
            read_probes(Path(probes))
        if files:
            _require_suites(cfg)
    if any("base" in spec.models(cfg) for spec in specs):
        require_positions(num_positions(local_config(model.path)), cfg.data)


def require_judges(cfg: Config, specs: list[StageSpec]) -> None:
    """Refuse judges of another kind, and reward models that a stage is trained against."""
    used = {role for spec in specs for role in spec.models(cfg)}
    for key, place in language_judge(cfg).items():
        if key in used:
            external(key, shipped(place), "sft", cfg.model)
    for key, place in reward_judges(cfg).items():
        if key not in used:
            continue
        external(key, place, "rm", cfg.model)
        trained_against = cfg.parents.rm or [f"{cfg.runs_dir}/{cfg.name}/rm"]
        if Path(place).resolve() in {Path(one).resolve() for one in trained_against}:
            raise UserError(
                f"{key}={place} is the reward model that this run trains against: a judge must be "
                "another one, of another run's comparisons"
            )


def _require_tasks(cfg: Config, which: TasksRead, *, alone: bool) -> None:
    """Read the tasks that a stage reads itself. alone: it reads nothing else."""
    from rlhf_cli.stages.task_reading import require_explained, require_tasks

    if which is TasksRead.evaluated:
        require_tasks(cfg, alone=alone)
    else:
        require_explained(cfg)


def _require_suites(cfg: Config) -> None:
    """Read the files of the suites that are named, and refuse as their evaluation would."""
    from rlhf_cli.evaluation.suites.rows import read_suites

    suites = cfg.evaluation.suites
    read_suites(suites, cfg.seed)
    for key, place in classifiers(suites).items():
        require_classifier(key, place)


def require_device(runtime: Runtime) -> None:
    """Refuse a GPU that is not there; what a GPU is able to do is asked by the worker."""
    name, _, number = runtime.device.partition(":")
    if name != "cuda" or "rocm" in version("torch"):
        return
    num = count_gpus()
    if num == 0 and not DRIVER.exists():
        reason = "torch is a build for the CPU" if "+cpu" in version("torch") else "it has no GPU"
        found = f"cannot be used on this machine: {reason}"
    elif num and number and int(number) >= num:
        found = f"does not exist: this machine has {num} GPU{'s' * (num > 1)}, the first is cuda:0"
    else:
        return
    raise UserError(f"runtime.device={runtime.device} {found}; use runtime.device=auto")


def roles_of(cfg: Config, specs: list[StageSpec]) -> list[str]:
    """Return the roles that these stages need or have sources of, in the order of the stages."""
    found = dict.fromkeys(role for spec in specs for role in spec.data(cfg))
    spared = {role for spec in specs for role in spec.optional} - {
        role for spec in specs for role in spec.data(cfg) if role not in spec.optional
    }
    return [role for role in found if role not in spared or sources_of(cfg, role)]


def require_source(cfg: Config, role: str) -> None:
    """Refuse a role that no source is named for."""
    if not (sources_of(cfg, role) or (role == "prompts" and cfg.data.comparisons)):
        raise UserError(f"data.{role} has no rows: {NO_ROWS[role]}")


def require_rows(cfg: Config, role: str) -> None:
    """Read a role for its stage, and refuse as it would. The embedded world needs no reading."""
    sources = [source for other in (*ROLES, role) for source in sources_of(cfg, other)]
    if all(task_of(source.path) for source in sources):
        return
    from rlhf_cli.stages.reading import cache_of, records_of

    spec = spec_of(cfg, role)
    with cache_of(cfg, spec) as cache:
        records_of(spec, cache).report.enforce()

"""What the evaluation reads: its keys, data, models and files, for its row of the table of stages."""

from rlhf_cli.config.judges import language_judge, reward_judges
from rlhf_cli.config.keys import probes_file
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import TEXT, TasksRead, base_model
from rlhf_cli.config.suites import SECTION, classifiers, suite_files

OOD = "ood/"  # before the name of a set of evaluation.ood, as a role of data


def data(cfg: Config) -> tuple[str, ...]:
    """Without any prompts the tasks alone are evaluated, where there are tasks.

    Where there are sets of evaluation.ood, what training asked is left out of them.
    """
    has_prompts = cfg.data.prompts or cfg.data.comparisons
    sets = [OOD + one.name for one in cfg.evaluation.ood]
    trained = ("demonstrations", "comparisons") if sets else ()
    compared = ("comparisons",) if cfg.data.comparisons else ()
    roles = dict.fromkeys(("prompts", *sets, *trained, *compared))
    return tuple(roles) if has_prompts or not cfg.tasks.files else ()


def config(cfg: Config) -> tuple[str, ...]:
    """Prompts have no responses; comparisons have."""
    responses = ("data.long_responses",) if cfg.data.comparisons else ()
    named = ("evaluation", "judge", "reward", "data.eval_fraction")
    return (*TEXT, *named, *responses, *_shots_as(cfg))


def tasks(cfg: Config) -> TasksRead | None:
    """Return which tasks the evaluation reads; None where neither tasks nor names of some are given."""
    given = cfg.tasks.files or cfg.tasks.hold_out or cfg.evaluation.tasks.also
    return TasksRead.evaluated if given else None


def _shots_as(cfg: Config) -> tuple[str, ...]:
    return ("tasks.shots_as",) if cfg.tasks.files else ()


def models(cfg: Config) -> dict[str, tuple[str, str | None]]:
    """Return the base model, judges, and the models that read responses where they are named."""
    diversity = cfg.evaluation.diversity
    named = {"embedder": diversity.embedder, "nli": diversity.nli} if diversity.samples else {}
    named |= classifiers(cfg.evaluation.suites) | reward_judges(cfg) | language_judge(cfg)
    found = {role: (path, None) for role, path in named.items() if path is not None}
    return base_model(cfg) | found


def files(cfg: Config) -> dict[str, str]:
    named = suite_files(cfg.evaluation.suites)
    found = {f"{SECTION}.{suite}": path for suite, path in named.items()}
    probes = cfg.evaluation.probes
    return found | ({} if probes is None else {"evaluation.probes": str(probes_file(probes))})

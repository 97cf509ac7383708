"""A row of the table of stages: its code, its inputs, and what it makes."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from rlhf_cli.config.schema.run import Config

TEXT = (  # keys that reach every stage, because it reads or writes texts
    "seed", "runtime.dtype", "runtime.reference_implementation",
    "model.trust_remote_code", "model.attention", "data.system", "data.date",
    "data.max_prompt_tokens", "data.max_response_tokens", "data.long_prompts",
)  # fmt: skip


def base_model(cfg: Config) -> dict[str, tuple[str, str | None]]:
    """Return the role and the place of the base model."""
    return {"base": (cfg.model.path, cfg.model.revision)}


class TasksRead(Enum):
    """Which tasks of tasks.files a stage reads: those held out, those trained on."""

    evaluated = "evaluated"
    trained = "trained"


class Makes(Enum):
    """What others read of a stage: model/ that answers, model/ that scores, data/, or its report alone."""

    policy = "policy"
    reward_model = "reward_model"
    data = "data"
    report = "report"


@dataclass(slots=True, kw_only=True)
class StageSpec:
    """config(cfg): dotted sections whose change makes the result another one. data(cfg): roles of
    the data it reads. models(cfg): role -> (path, revision) of models that are not stages.
    optional: roles of its data that may have no sources.

    parents(cfg): the stages whose results it reads. required: all of them must exist; else it takes
    those that do. makes: what others read of it; a policy is a column of the evaluation, under its
    label. headline: the metrics that a person is shown first. default: part of stage=all. tasks(cfg):
    those that it reads itself, beside those of the mixture in its data. files(cfg): {key: path} of
    further files that it reads, known by their content.
    """

    name: str
    label: str
    title: str
    module: str
    config: Callable[[Config], tuple[str, ...]]
    data: Callable[[Config], tuple[str, ...]]
    models: Callable[[Config], dict[str, tuple[str, str | None]]]
    parents: Callable[[Config], tuple[str, ...]]
    required: bool
    makes: Makes
    headline: tuple[str, ...]
    optional: tuple[str, ...] = ()
    default: bool = True
    tasks: Callable[[Config], TasksRead | None] = lambda cfg: None
    files: Callable[[Config], dict[str, str]] = lambda cfg: {}

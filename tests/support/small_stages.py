"""Stages on so few data that one takes a second, with records of their optimizer steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from rlhf_cli.config.compose import resolve
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.runtime.engine import Engine

LITTLE = (
    "experiment=smoke",
    "runtime=cpu",
    "runtime.num_threads=1",
    "tiny_world.demonstrations=20",
    "tiny_world.comparisons=20",
    "tiny_world.prompts=20",
    "tiny_world.pretraining=20",
    "tiny_world.held_out_prompts=4",
    "data.eval_fraction=0.3",
    "data.max_response_tokens=12",
    "sft.batch.size=4",
    "rm.batch.size=5",
    "ppo.total_episodes=8",
    "ppo.batch.rollout=4",
    "ppo.batch.minibatch=4",
    "ppo.batch.microbatch=4",
    *(
        f"{name}.{key}"
        for name in ("reinforce", "rloo", "grpo")
        for key in ("total_episodes=8", "batch.rollout=8", "batch.minibatch=8")
    ),
    "raft.prompts=4",
    "raft.samples=2",
    "raft.rounds=2",
    "evaluation.prompts=3",
    "samples=0",
    "save.every_minutes=null",
)
# A matrix, which decays, and a gain, which does not.
WATCHED = ("model.layers.0.self_attn.q_proj.weight", "model.norm.weight")


@cache
def little() -> Config:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolve(compose("config", overrides=list(LITTLE)))


def changed(section, values: dict[str, Any]):
    """Return a copy of a section of the configuration with other values of these dotted keys."""
    for key, value in values.items():
        head, _, rest = key.partition(".")
        new = changed(getattr(section, head), {rest: value}) if rest else value
        section = replace(section, **{head: new})
    return section


def work(
    stage: str, folder: Path, values: dict[str, Any], parents: Path | None = None
) -> dict[str, float]:
    """Run a stage in folder/<stage> with other values of these keys; return its metrics."""
    cfg = changed(little(), values)
    roles = STAGES[stage].parents(cfg)
    places = {role: (parents or folder) / role / "model" for role in roles}
    inputs = {role: place for role, place in places.items() if place.is_dir()}
    (folder / stage).mkdir(parents=True)
    return resolve_name(STAGES[stage].module).run(cfg, inputs, folder / stage)


@dataclass(slots=True)
class Step:
    """One optimizer step: watched weights before and after, their gradients, the total norm."""

    before: list[Tensor]
    gradients: list[Tensor]
    norm: float
    after: list[Tensor]


@dataclass(slots=True)
class Seen:
    """Recorded optimizer steps, by the name of the class of the network."""

    steps: dict[str, list[Step]] = field(default_factory=dict)


def watched(model: nn.Module) -> list[nn.Parameter]:
    return [model.get_parameter(name) for name in WATCHED]


def seen_step(step: Callable, seen: Seen) -> Callable:
    """Return `Engine.step`, which also records the step in `seen`."""

    def wrapped(engine: Engine, factor: float) -> float:
        mine = watched(engine.model)
        before = [p.detach().clone() for p in mine]
        gradients = [p.grad.detach().clone() for p in mine]
        squares = [p.grad.square().sum() for p in engine.model.parameters() if p.grad is not None]
        norm = float(torch.stack(squares).sum().sqrt())
        said = step(engine, factor)
        after = [p.detach().clone() for p in mine]
        found = seen.steps.setdefault(type(engine.model).__name__, [])
        found.append(Step(before=before, gradients=gradients, norm=norm, after=after))
        return said

    return wrapped


@contextmanager
def seeing() -> Iterator[Seen]:
    """Record every optimizer step."""
    seen = Seen()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", seen_step(Engine.step, seen))
        yield seen

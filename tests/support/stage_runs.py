"""Stages of a small smoke run in this process, and their metrics."""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from pkgutil import resolve_name

from hydra import compose, initialize_config_dir

from rlhf_cli.config.compose import resolve
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES

SMALL = (
    "experiment=smoke",
    "runtime=cpu",
    "runtime.num_threads=1",
    "tiny_world.demonstrations=40",
    "tiny_world.comparisons=24",
    "tiny_world.prompts=40",
    "tiny_world.pretraining=40",
    "sft.epochs=2",
    "sft.batch.size=8",
    "sft.batch.microbatch=4",
    "sft.dropout=0.1",
    "sft.select_by=eval_loss",
    "rm.batch.size=4",
    "rm.dropout=0.1",
    "ppo.total_episodes=44",  # the last rollout has 12, its last minibatch 4
    "ppo.batch.rollout=16",
    "ppo.batch.minibatch=8",
    "ppo.batch.microbatch=8",
    "ppo.kl.controller=adaptive",
    "ppo.ema_decay=0.9",
    "ppo.ptx.coef=1.0",
    "ppo.ptx.ratio=1",
    "ppo.whiten_rewards=true",
    "dpo.batch.size=4",
    "rloo.total_episodes=48",
    "rloo.batch.rollout=16",
    "rloo.batch.minibatch=8",
    "rloo.batch.microbatch=8",
    "rloo.inner_epochs=2",
    "rloo.baseline=running",
    "rloo.skip_uniform=true",
    "rloo.ema_decay=0.9",
    "raft.prompts=8",
    "raft.samples=2",
    "raft.rounds=2",
    "raft.epochs=1",
    "raft.batch.size=4",
    "raft.batch.microbatch=3",
    "evaluation.prompts=8",
    "evaluation.best_of_n=2",
    "evaluation.diversity.samples=2",
    "ppo.watch.prompts=2",
    "rloo.watch.prompts=2",
    "samples=1",
)


MEASURED = (
    "time/",
    "speed/",
    "mem/",
    "cost/seconds",
    "cost/energy_kwh",
    "cost/money",
    "total_steps",
)  # and what each attempt logs again


# what dropout drops depends on the process; at the edge of the value's clip rounding decides which
# gradient there is; microbatches that divide nothing evenly
SAME_EVERYWHERE = [
    "sft.dropout=0", "rm.dropout=0", "ppo.value_clip_eps=null",
    "sft.batch.microbatch=3", "rm.batch.microbatch=12", "ppo.batch.microbatch=3",
]  # fmt: skip


RATIONALES = [  # in batches that two processes do not share evenly
    "tasks.files=[tiny_world/step_same]", "rationales.limit=5", "rationales.samples=2",
    "rationales.shots=1", "rationales.batch=4", "rationales.keep=all",
    "rationales.checks=[duplicate]", "data.max_prompt_tokens=96",
]  # fmt: skip


@cache
def _composed(more: tuple[str, ...]) -> Config:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolve(compose("config", overrides=[*SMALL, *more]))


def config(*more: str) -> Config:
    """Return the configuration of a small run, composed once because that is slow."""
    return deepcopy(_composed(more))


def work(stage: str, parents: Path, folder: Path, *more: str) -> dict[str, float]:
    """Run a stage in `folder`, or resume it."""
    out = folder / stage
    out.mkdir(parents=True, exist_ok=True)
    cfg = config(*more)
    places = {role: parents / role / "model" for role in STAGES[stage].parents(cfg)}
    inputs = {role: place for role, place in places.items() if place.is_dir()}
    return resolve_name(STAGES[stage].module).run(cfg, inputs, out)


# The default pipeline, and one of each kind of the other methods, before the evaluation of all.
COMPARED = [
    name for name, spec in STAGES.items() if spec.default or name in ("rloo", "dpo", "raft")
]


def rows(folder: Path) -> list[dict]:
    """Return metrics.jsonl without times and memory, and without lines of these alone."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    left = [
        {k: v for k, v in row.items() if k != "time" and not k.startswith(MEASURED)}
        for row in found
    ]
    return [row for row in left if row]


def metrics(folder: Path) -> list[dict]:
    """Return metrics.jsonl without the lines that have no step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "step" in row]

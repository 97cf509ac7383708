"""A stage reads exactly the keys of the configuration that its fingerprint covers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pkgutil import resolve_name

import pytest

from rlhf_cli.config.keys import covers
from rlhf_cli.config.result_keys import BY_CONTENT, NOT_RESULTS, POLICY_GRADIENTS, RAFTS
from rlhf_cli.config.schema import (
    Combine,
    KLController,
    LongText,
    MissingEOSMode,
    RaftKeep,
    ScheduleKind,
    Source,
    Ties,
)
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.spec import ROLES
from rlhf_cli.pipeline.plan import Planner
from tests.support.small_stages import changed, little
from tests.support.tasks import make, settings, write_rows

COPYING = ("dataclasses", "copy", "rlhf_cli.config.compose")  # these copy complete sections
SOURCES = tuple(f"data.{role}" for role in ROLES)
# With these values every stage uses all of its keys.
IN_USE = {
    "rm.ties": Ties.davidson,
    "dpo.ties": Ties.davidson,
    "reward.combine": Combine.penalised,
    "ppo.ptx.coef": 0.5,
    "ppo.kl.controller": KLController.adaptive,
    "ppo.missing_eos.mode": MissingEOSMode.replace,
    "sft.schedule.kind": ScheduleKind.linear,
    "rm.schedule.kind": ScheduleKind.cosine,
    "ppo.schedule.kind": ScheduleKind.linear,
    "rloo.skip_uniform": True,
    **{f"{name}.schedule.kind": ScheduleKind.linear for name in (*POLICY_GRADIENTS, *RAFTS)},
    **{f"{name}.keep": RaftKeep.top for name in RAFTS},
    "data.pretraining": [Source(path="tiny_world:pretraining")],
    "evaluation.best_of_n": 2,
    "evaluation.tasks.also": ["hot"],
    "evaluation.tasks.samples": 2,
    "rationales.limit": 2,
    "rationales.samples": 2,
    "data.long_prompts": LongText.truncate,
    "data.max_prompt_tokens": 12,
    "data.max_response_tokens": 16,
}

TASK = """
name: hot
clusters: [facts]
source: hot.jsonl
options: ["no", "yes"]
answer: "{{ options[right] }}"
rationale: question
templates: [{name: plain, input: "{{ question }}", target: "{{ answer }}"}]
"""


def sections(section, prefix: str = "") -> Iterator[tuple[object, str]]:
    """Yield every section of a configuration with the prefix of its keys."""
    yield section, prefix
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield from sections(value, f"{prefix}{field.name}.")


@contextmanager
def recording(cfg: Config) -> Iterator[set[str]]:
    """Record the keys of this configuration that are read, except by copies of a section."""
    prefixes = {id(section): prefix for section, prefix in sections(cfg)}
    read: set[str] = set()

    def getting(section, name: str):
        value = object.__getattribute__(section, name)
        prefix = prefixes.get(id(section))
        known = prefix is not None and name in type(section).__dataclass_fields__
        copied = sys._getframe(1).f_globals["__name__"] in COPYING
        if known and not is_dataclass(value) and not copied:
            read.add(prefix + name)
        return value

    kinds = {type(section) for section, _ in sections(cfg)}
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setattr(kind, "__getattribute__", getting)
        yield read


def covered_by(cfg: Config, stage: str) -> set[str]:
    """Return the keys of the fingerprint of a stage, without its sources."""
    config = Planner(cfg=cfg).fingerprint(STAGES[stage]).config
    return {key for key in config if not key.startswith(SOURCES)}


@pytest.fixture(scope="module")
def reads_of_stage(tmp_path_factory):
    """Return reads_of_stage(stage) -> (keys read, keys covered); each stage runs once."""
    folder, found = tmp_path_factory.mktemp("reads"), {}
    (folder / "hot.yaml").write_text(TASK)
    write_rows(folder / "hot.jsonl", [{"question": f"{i}", "right": i % 2} for i in range(20)])
    files = {"tasks.files": [str(folder / "hot.yaml")], "evaluation.tasks.shots": [0, 1]}
    cfg = changed(little(), {**IN_USE, **files, "runs_dir": str(folder / "runs")})

    def run(stage: str) -> tuple[set[str], set[str]]:
        if stage not in found:
            for parent in STAGES[stage].parents(cfg):
                run(parent)
            (folder / stage).mkdir()
            inputs = {name: folder / name / "model" for name in STAGES[stage].parents(cfg)}
            with recording(cfg) as read:
                resolve_name(STAGES[stage].module).run(cfg, inputs, folder / stage)
            found[stage] = read, covered_by(cfg, stage)
        return found[stage]

    return run


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_exactly_the_keys_of_its_fingerprint(reads_of_stage, stage):
    read, covered = reads_of_stage(stage)
    allowed = (*NOT_RESULTS, *BY_CONTENT, *SOURCES)
    uncovered = {k for k in read - covered if not any(covers(section, k) for section in allowed)}
    assert not uncovered, f"{stage} reads {sorted(uncovered)}: a change would not run it again"
    unread = covered - read
    assert not unread, f"{stage} never reads {sorted(unread)}: a change would run it for nothing"


def test_recording_ignores_reads_of_copies():
    cfg = changed(little(), {})
    with recording(cfg) as read:
        Config(**{f.name: getattr(cfg, f.name) for f in fields(cfg)})
        changed(cfg, {"sft.epochs": 3})
        assert not [key for key in read if key.startswith(("sft.", "rm."))]
        assert cfg.sft.epochs + cfg.rm.optim.lr
        assert {"sft.epochs", "rm.optim.lr"} <= read
        assert "sft.optim.lr" not in read


def test_sft_on_tasks_reads_only_keys_of_its_fingerprint_and_all_of_tasks(tmp_path):
    """There are two tasks, one of which is held out, so that every key has an effect."""
    files = [make(tmp_path, 30, name="rte"), make(tmp_path, 30, name="sst", clusters=["sentiment"])]
    values = {
        "runs_dir": str(tmp_path / "runs"),
        "tasks": settings(*files, hold_out=["nli"], shots=[0, 1], cot=0.5, options=0.5),
        "data.demonstrations": [Source(path="tasks:train")],
        "data.max_prompt_tokens": 64,
        "sft.epochs": 2,
    }
    cfg = changed(little(), values)
    (tmp_path / "sft").mkdir()
    with recording(cfg) as read:
        metrics = resolve_name(STAGES["sft"].module).run(cfg, {}, tmp_path / "sft")
    covered = covered_by(cfg, "sft")
    allowed = (*NOT_RESULTS, *BY_CONTENT, *SOURCES)
    assert not {k for k in read - covered if not any(covers(section, k) for section in allowed)}
    every = {f"tasks.{field.name}" for field in fields(cfg.tasks)}
    assert every <= read
    names = ("files", "folder", "hold_out", "train", "exclusive")
    assert every - covered == {f"tasks.{name}" for name in names}
    assert metrics["sft/epoch"] == 2

"""Shipped files compose and survive JSON; unknown keys and values of wrong shape are refused."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlhf_cli.config.compose import conform, freeze, resolve, stage_list, thaw
from rlhf_cli.config.keys import conf_dir, flatten, select
from rlhf_cli.config.result_keys import BY_CONTENT, NOT_RESULTS
from rlhf_cli.config.schema import ConfigError, Ties
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.spec import ROLES
from rlhf_cli.report.config_page import comments_of
from rlhf_cli.stages.reading import spec_of
from tests.support.configuration import composed

CONF = conf_dir()
GROUPS = ("model", "data", "runtime", "experiment")
PRESETS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*"))]
NEEDED = {"model=generic": ["model.path=org/name"]}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_shipped_preset_composes(preset):
    cfg = composed(preset, *NEEDED.get(preset, []))
    assert freeze(thaw(freeze(cfg))) == freeze(cfg)


def test_choices_are_written_by_their_names():
    frozen = freeze(composed("rm.ties=davidson"))
    assert frozen["rm"]["ties"] == "davidson"
    assert thaw(frozen).rm.ties is Ties.davidson


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_value_has_an_explanation(path: Path):
    """A comment is on the line, on the section, or in a heading of the file."""
    assert path.read_text().startswith("#")
    if path.parent.name in ("model", "runtime") or path.name == "config.yaml":
        assert len(comments_of(path)) >= 3


@pytest.mark.parametrize("preset", [p for p in PRESETS if p.startswith("model=")])
def test_model_presets_have_sensible_learning_rates(preset):
    lr = composed(preset, *NEEDED.get(preset, [])).model.lr
    assert 1e-7 < lr.policy <= lr.sft <= 1e-2
    assert 1e-7 < lr.rm <= 1e-2
    assert lr.value >= lr.policy


def test_stage_is_all_one_or_a_list():
    assert stage_list("all") == ["sft", "rm", "ppo", "evaluate"]
    assert stage_list("rm") == ["rm"]
    assert stage_list(["ppo", "sft", "sft"]) == ["sft", "ppo"]
    with pytest.raises(ConfigError, match="did you mean evaluate"):
        stage_list("evalaute")


def test_constraints_are_checked_when_json_is_read_back():
    frozen = freeze(composed())
    frozen["sft"]["optim"]["lr"] = -1.0
    with pytest.raises(ConfigError, match=r"^sft\.optim\.lr=-1\.0 must be positive"):
        thaw(frozen)


def test_an_unknown_key_of_a_file_is_refused():
    with pytest.raises(ConfigError, match=r"did you mean sft\.epochs"):
        resolve(OmegaConf.create(freeze(composed()) | {"sft": {"epoch": 3}}))


def test_an_experiment_overrides_the_defaults(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nppo: {kl: {coef: 0.5}}\n"
    (tmp_path / "experiment" / "own.yaml").write_text(text)
    assert composed(f"--config-dir={tmp_path}", "experiment=own").ppo.kl.coef == 0.5
    both = composed(f"--config-dir={tmp_path}", "experiment=own", "ppo.kl.coef=0.7")
    assert both.ppo.kl.coef == 0.7


def test_every_key_belongs_to_a_stage_or_changes_no_result():
    cfg = composed("ppo.ptx.coef=1.0", "sft.select_by=rm_score", "sft.reward_model=x")
    frozen = freeze(cfg)
    read = {*NOT_RESULTS, *BY_CONTENT, *(f"data.{role}" for role in ROLES), "tiny_world", "tasks"}
    for spec in STAGES.values():
        read |= set(spec.config(cfg))
        for role in spec.data(cfg):
            read |= set(spec_of(cfg, role).config())
    unread = set(flatten(frozen)) - set(select(frozen, read))
    assert not unread, f"a change of {sorted(unread)} would rerun nothing"


def test_an_integer_may_be_written_with_an_exponent():
    found = conform({"seed": 1e6, "ppo": {"total_episodes": 2.0, "gamma": 1.0}}, Config)
    assert found == {"seed": 1_000_000, "ppo": {"total_episodes": 2, "gamma": 1.0}}
    assert type(found["seed"]) is int
    assert type(found["ppo"]["gamma"]) is float


def test_conform_leaves_unknown_keys_unchanged():
    given = {"nosuch": 1e6, "sft": {"optim": {"lr": "${model.lr.sft}"}, "epoch": [1]}}
    assert conform(given, Config) == given


def test_conform_leaves_the_deepspeed_section_unchanged():
    given = {"runtime": {"deepspeed": {"zero_optimization": {"sub_group_size": 1e9}}}}
    assert conform(given, Config) == given
    assert conform({"runtime": {"deepspeed": None}}, Config) == {"runtime": {"deepspeed": None}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sft": 1}, "sft is a section, not a value: did you mean sft.epochs=1?"),
        ({"sft": {"schedule": "linear"}}, "did you mean sft.schedule.kind=linear? (it has kind,"),
        ({"sft": None}, "sft is a section, not a value: did you mean sft.epochs=...?"),
        ({"model": {"lr": 1e-4}}, "did you mean model.lr.sft=0.0001?"),
        ({"sft": {"optim": {"betas": 0.9}}}, "sft.optim.betas=0.9 is no list: write "),
        ({"tracking": {"trackers": "wandb"}}, "write tracking.trackers=[wandb]"),
        ({"data": {"prompts": "a.txt"}}, "write 'data.prompts=[{path: a.txt}]'"),
        (
            {"data": {"prompts": ["a.txt", "b.txt"]}},
            "'data.prompts=[{path: a.txt}, {path: b.txt}]'",
        ),
        ({"data": {"prompts": {"path": "a"}}}, "write 'data.prompts=[{path: a}]'"),
        ({"data": {"prompts": None}}, "write 'data.prompts=[]'"),
        ({"data": {"prompts": [{"path": None}]}}, "data.prompts[0].path may not be null"),
        ({"runtime": {"deepspeed": "foo"}}, "runtime.deepspeed=foo is no dictionary"),
        ({"name": ["a", "b"]}, "name=[a, b] is not a text"),
        ({"resume": {"a": True}}, "resume={a: true} is not one of auto, last_valid, never"),
        ({"rm": {"margin": float("nan")}}, "rm.margin=nan is not a finite number"),
        ({"ppo": {"kl": {"coef": float("inf")}}}, "ppo.kl.coef=inf is not a finite number"),
        ({"seed": 10**25}, "seed=10000000000000000000000000 is too large"),
        ({"save": {"keep": None}}, "save.keep may not be null"),
    ],
)
def test_a_value_of_the_wrong_shape_is_refused_with_the_right_form(given, expected):
    with pytest.raises(ConfigError) as error:
        conform(given, Config)
    assert expected in str(error.value)
    assert str(error.value).count("\n") == 0


def test_one_reward_model_or_several_replace_the_stage():
    assert composed("parents.rm=a/rm").parents.rm == ["a/rm"]
    assert composed("parents.rm=[a/rm,b/rm]").parents.rm == ["a/rm", "b/rm"]
    assert composed().parents.rm is None
    for given in ("[]", "[a,a]"):
        with pytest.raises(
            ConfigError, match=r"parents\.rm=.* must name at least one reward model"
        ):
            composed(f"parents.rm={given}")

"""Values that follow from others, and values that are refused."""

from copy import deepcopy

import pytest

from rlhf_cli.config.compose import freeze, thaw
from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.schema.run import Config
from tests.support.configuration import composed


def test_each_stage_has_the_learning_rate_of_its_model():
    rates = {"sft": 0.1, "rm": 0.2, "policy": 0.3, "value": 0.4}
    words = [f"model.lr.{name}={rate}" for name, rate in rates.items()]
    cfg = composed(*words, "rm.optim.lr=0.5")  # a value of the stage itself has precedence
    found = [cfg.sft.optim.lr, cfg.rm.optim.lr, cfg.ppo.optim.lr, cfg.ppo.value_optim.lr]
    assert found == [0.1, 0.5, 0.3, 0.4]
    assert composed(*words).rm.optim.lr == 0.2


@pytest.fixture(scope="module")
def frozen():
    return freeze(composed())


def changed(frozen: dict, section: str, values: dict) -> Config:
    """Return the configuration with these values in a section, "" for the keys of the run."""
    given = deepcopy(frozen)
    place = given
    for name in section.split(".") if section else ():
        place = place[name]
    place |= values
    return thaw(given)


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("data", {"eval_fraction": 0.0}, r"^data\.eval_fraction=0\.0 must lie in \(0, 1\)"),
        ("data", {"eval_fraction": 1.0}, r"^data\.eval_fraction=1\.0 must lie in"),
        ("data", {"max_bad_fraction": 1.5}, r"^data\.max_bad_fraction=1\.5 must lie in \[0, 1\]"),
        ("data", {"max_prompt_tokens": 0}, r"^data\.max_prompt_tokens=0 must be positive"),
        ("data", {"max_response_tokens": 0}, r"^data\.max_response_tokens=0 must be positive"),
        ("tiny_world", {"completions": [1, 4]}, r"^tiny_world\.completions=\[1, 4\] must be"),
        ("tiny_world", {"completions": [5, 4]}, r"^tiny_world\.completions=\[5, 4\] must be"),
        ("tiny_world", {"noise": -1.0}, r"^tiny_world\.noise=-1\.0 must be at least 0"),
        ("tiny_world", {"wrong": 0.5}, r"^tiny_world\.wrong=0\.5 must be at most 0"),
        ("tiny_world", {"prompts": 19}, r"must be at least 20"),
        ("save", {"keep": 0}, r"^save\.keep=0 must be at least 1"),
        ("save", {"every_steps": 0}, r"^save\.every_steps=0 must be positive or null"),
        ("save", {"every_minutes": 0.0}, r"^save\.every_minutes=0\.0 must be positive or null"),
        ("runtime", {"timeout": 0.0}, r"^runtime\.timeout=0\.0 must be positive"),
        ("runtime", {"device": "gpu"}, r"^runtime\.device=gpu is not one of .* mean cuda\?"),
        ("runtime", {"device": "cuda:x"}, r"^runtime\.device=cuda:x is not one of"),
        ("runtime", {"num_processes": 1000}, r"^runtime\.num_processes=1000 must be at most 256"),
        ("tracking", {"every": 0}, r"^tracking\.every=0 must be positive"),
        ("tracking", {"project": ""}, r"^tracking\.project='' must be a name"),
        (
            "evaluation.diversity",
            {"inputs": 1},
            r"^evaluation\.diversity\.inputs=1 must be at least 2",
        ),
        (
            "evaluation.diversity",
            {"vocab": 1},
            r"^evaluation\.diversity\.vocab=1 must be at least 2",
        ),
        ("evaluation.diversity", {"samples": -1}, r"\.samples=-1 must be at least 0"),
        (
            "tracking",
            {"price_per_hour": -1.0},
            r"\.price_per_hour=-1\.0 must be at least 0 or null$",
        ),
        (
            "evaluation.diversity",
            {"samples": 1},
            r"\.samples=1 must be at least 2, or 0: no diversity",
        ),
        ("rm", {"margin": -1.0}, r"^rm\.margin=-1\.0 must be at least 0"),
        ("rm", {"max_steps": 0}, r"^rm\.max_steps=0 must be positive or null"),
        ("sft", {"max_steps": -1}, r"^sft\.max_steps=-1 must be positive or null"),
        ("ppo", {"max_steps": 0}, r"^ppo\.max_steps=0 must be positive or null"),
        ("runtime", {"dtype": "float16"}, r"^runtime\.dtype=float16 is not one of auto"),
    ],
)
def test_invalid_values_are_refused_with_their_key(frozen, section, values, expected):
    with pytest.raises(ConfigError, match=expected):
        changed(frozen, section, values)


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("kl_stop", {"run": -1.0}, r"^ppo\.kl_stop\.run=-1\.0 must be positive or null"),
        ("kl_stop", {"iteration": 0.0}, r"^ppo\.kl_stop\.iteration=0\.0 must be positive"),
        (
            "alerts",
            {"eos_rate": 7.0},
            r"^ppo\.alerts\.eos_rate=7\.0 must lie in \[0, 1\] or null \(share",
        ),
        (
            "alerts",
            {"length": -2.0},
            r"^ppo\.alerts\.length=-2\.0 must lie in \(1, inf\) or null \(factor\)",
        ),
        ("alerts", {"entropy": -0.1}, r"^ppo\.alerts\.entropy=-0\.1 must be at least 0"),
        ("alerts", {"kl": -1.0}, r"^ppo\.alerts\.kl=-1\.0 must be at least 0"),
    ],
)
def test_invalid_limits_of_kl_stop_and_alerts_are_refused(frozen, section, values, expected):
    with pytest.raises(ConfigError, match=expected):
        changed(frozen, f"ppo.{section}", values)


@pytest.mark.parametrize(
    "values", [{"seed": -1}, {"seed": 2**32}, {"runs_dir": ""}, {"runs_dir": " "}]
)
def test_seeds_and_the_folder_of_runs_have_limits(frozen, values):
    ((name, value),) = values.items()
    with pytest.raises(ConfigError, match=f"^{name}={value!r} must"):
        changed(frozen, "", values)


@pytest.mark.parametrize("name", ["a..b", "a b", "größer", "x" * 255])
def test_any_plain_folder_name_is_accepted_as_a_run_name(frozen, name):
    assert changed(frozen, "", {"name": name}).name == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".hidden", "..", "/root", "a/../b", "a/b", "a/", "sft/.sft.work", "a\nb", "a\x1b[2Jb", "-x",
        " a", "x" * 256, "ö" * 128,
    ],
)  # fmt: skip
def test_a_run_name_that_is_no_plain_folder_name_is_refused(frozen, name):
    with pytest.raises(ConfigError, match="must be a plain folder name"):
        changed(frozen, "", {"name": name})


def test_a_rollout_that_is_no_multiple_of_the_minibatch_is_refused(frozen):
    with pytest.raises(ConfigError, match=r"ppo\.batch\.rollout=100 is not a multiple"):
        changed(frozen, "ppo.batch", {"rollout": 100, "minibatch": 64})

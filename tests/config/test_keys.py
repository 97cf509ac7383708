"""Dotted keys: the schema and conf/ agree, and misspelt keys have nearest ones."""

from rlhf_cli.config.compose import freeze
from rlhf_cli.config.keys import flatten, nearest_keys, schema_keys
from tests.support.configuration import composed


def test_nearest_keys_of_misspelt_keys():
    assert nearest_keys("sft.optim.lrr") == ["sft.optim.lr"]
    assert nearest_keys("ppo.optim.beta") == ["ppo.optim.betas"]
    assert nearest_keys("runtime.devcie") == ["runtime.device"]
    assert nearest_keys("epochs") == ["rm.epochs", "sft.epochs", "dpo.epochs"]
    assert nearest_keys("exp") == ["experiment"]
    assert nearest_keys("qqqqqq") == []


def test_the_keys_of_the_schema_equal_those_of_the_yaml_files():
    given = set(flatten(freeze(composed())))
    leaves = {k for k in schema_keys() if not any(o.startswith(f"{k}.") for o in schema_keys())}
    assert leaves == given

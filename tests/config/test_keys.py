"""Dotted keys: the schema and conf/ agree, and misspelt keys have nearest ones."""

import pytest

from rlhf_cli.config.compose import freeze
from rlhf_cli.config.keys import conf_dir, flatten, nearest_keys, probes_file, schema_keys
from rlhf_cli.config.schema import ConfigError
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


def test_probes_are_the_shipped_ones_or_a_file(tmp_path, monkeypatch):
    """A file called like the shipped ones does not replace them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probes").write_text("")
    (tmp_path / "mine.yaml").write_text("")
    assert probes_file("probes") == conf_dir() / "probes.yaml"
    assert probes_file("mine.yaml").samefile(tmp_path / "mine.yaml")
    with pytest.raises(
        ConfigError, match=r"evaluation\.probes=none\.yaml is no file: give the path"
    ):
        probes_file("none.yaml")

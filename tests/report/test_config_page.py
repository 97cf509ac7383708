"""The explanations of configuration keys, taken from the comments of the presets."""

import pytest
import yaml

from rlhf_cli.config.compose import freeze
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.report.config_page import all_comments, comments_of, flow, split_sections
from tests.support.configuration import composed

CONF = conf_dir()
SHARDED = ("zero1", "zero2", "zero3", "zero3_offload")


@pytest.mark.parametrize("name", ["cpu", "ddp", *SHARDED])
def test_comments_of_a_preset_include_those_of_inherited_keys(name):
    inherited = comments_of(CONF / "runtime" / "auto.yaml")
    found = comments_of(CONF / "runtime" / f"{name}.yaml")
    assert found.keys() >= inherited.keys()
    assert found["num_threads"] == inherited["num_threads"]


def test_comments_come_from_the_selected_preset():
    frozen = freeze(composed("runtime=zero3"))
    key = "runtime.deepspeed.zero_optimization.overlap_comm"
    comments = {name: all_comments(CONF, frozen, {"runtime": name})[key] for name in SHARDED[1:]}
    assert "reduce gradients" in comments["zero2"]
    assert "fetch the next layer" in comments["zero3"]


def test_a_key_within_the_deepspeed_section_is_a_section():
    sections, rest = split_sections(["runtime.deepspeed.zero_optimization", "runtime=zero2"])
    assert sections == ["runtime.deepspeed.zero_optimization"]
    assert rest == ["runtime=zero2"]


def test_lists_with_names_of_files_are_not_read_as_defaults(tmp_path):
    (tmp_path / "base.yaml").write_text("a: 1 # of base\nb: 2 # also of base\n")
    text = "defaults:\n  - base\n  - _self_\nb: 3 # own\nc:\n  - base\nd: 4 # own too\n"
    (tmp_path / "own.yaml").write_text(text)
    assert comments_of(tmp_path / "own.yaml") == {"a": "of base", "b": "own", "d": "own too"}


@pytest.mark.parametrize(
    "value", ["a: b", 'say "A"\nor B', "{a} \\ [b]", ["x, y", "z"], {"k": "#1"}]
)
def test_a_value_on_one_line_is_read_back_as_it_was(value):
    assert "\n" not in flow(value)
    assert yaml.safe_load(flow(value)) == value

"""The shipped data presets compose, have comments, and name existing forms and roles."""

import re
import socket
from dataclasses import fields

import pytest
from hydra import compose, initialize_config_dir

from rlhf_cli.config.compose import resolve
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.config.schema import Data, Source
from rlhf_cli.data.formats.table import check_format, format_names
from rlhf_cli.data.spec import ROLES
from tests.support.data_sources import load

PRESETS = sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml"))


def composed(*overrides):
    with initialize_config_dir(str(conf_dir()), version_base=None):
        return resolve(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize("name", PRESETS)
def test_every_data_preset_composes_with_sources_valid_for_their_role(name):
    data = composed(f"data={name}").data
    sources = [(role, source) for role in ROLES for source in getattr(data, role)]
    assert bool(sources) == (name != "generic")
    for role, source in sources:
        check_format(source, role)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hh", [None]),
        ("hh_harmless", ["harmless-base"]),
        ("hh_helpful", ["helpful-base", "helpful-online", "helpful-rejection-sampled"]),
    ],
)
def test_the_presets_of_hh_name_all_of_it_or_its_parts(name, parts):
    data = composed(f"data={name}").data
    for sources in (data.demonstrations, data.comparisons):
        assert [(s.data_dir, s.split, s.eval) for s in sources] == [
            (part, *side) for part in parts for side in ((None, False), ("test", True))
        ]
        assert {s.path for s in sources} == {"Anthropic/hh-rlhf"}


@pytest.mark.parametrize("name", ["generic", "tiny_world"])
def test_every_value_of_a_data_preset_has_a_comment(name):
    text = (conf_dir() / "data" / f"{name}.yaml").read_text()
    for field in fields(Data):
        at = text.index(f"\n{field.name}:")
        entry = re.split(r"\n(?=\w)", text[at + 1 :])[0]
        assert "  # " in entry, f"{name}.yaml does not explain {field.name}"


def test_the_generic_preset_explains_every_key_of_a_source_and_every_form():
    text = (conf_dir() / "data" / "generic.yaml").read_text()
    head = text[: text.index("\ndemonstrations:")]
    for field in fields(Source):
        assert re.search(rf"\b{field.name}\b", head), field.name
    for name in format_names():
        if name not in ("labelled", "prompt", "prompt_completion"):
            assert name in head, name


def test_a_local_preset_reads_the_folder_of_the_environment(real_data, monkeypatch):
    monkeypatch.setenv("RLHF_DATA", str(real_data))
    cfg = composed("data=hh_local", "++data.comparisons.0.limit=200")
    assert load(cfg, "comparisons").report.num_kept > 190
    cfg = composed("data=kwise", "++data.comparisons.0.columns={context: context}")
    first = load(cfg, "comparisons").train[0].prompt[0].content
    assert len(first) > 500  # the passages come before the question


def test_sources_may_be_given_on_the_command_line(write):
    path = write("faq.tsv", "".join(f"q {i}\ta {i}\n" for i in range(40)))
    source = f"{{path: '{path}', columns: {{prompt: 0, response: 1}}}}"
    cfg = composed("data=generic", f"data.demonstrations=[{source}]")
    assert load(cfg, "demonstrations").report.num_kept == 40


def test_tests_cannot_reach_the_network():
    with pytest.raises(RuntimeError, match="may not reach the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(RuntimeError, match=r"may not reach the network: example\.org"):
        socket.getaddrinfo("example.org", 80)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()

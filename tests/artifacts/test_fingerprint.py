"""Fingerprints of stages, hashes of models and tokenizers, and the date of a run."""

import json
import os
from datetime import date

import pytest

from rlhf_cli.artifacts import fingerprint as module
from rlhf_cli.artifacts.fingerprint import (
    Fingerprint,
    keep_date,
    model_hash,
    run_date,
    template_hash,
    tokenizer_hash,
)
from rlhf_cli.artifacts.manifest import canonical_hash
from tests.support.artifacts import fingerprint, manifest


def finished(made_of: Fingerprint):
    record = manifest()
    record.config, record.data = made_of.config, made_of.data
    record.parents, record.version = made_of.parents, made_of.version
    return record


def test_canonical_hash_ignores_the_order_of_keys():
    assert canonical_hash({"a": 1, "b": [1, 2]}) == canonical_hash({"b": [1, 2], "a": 1})
    assert canonical_hash([1, 2]) != canonical_hash([2, 1])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config": {"sft.lr": 0.5, "seed": 1}}, ["sft.lr changed 1.0 -> 0.5"]),
        ({"config": {"sft.lr": 1.0}}, ["seed changed 1 -> null"]),
        ({"config": {"sft.lr": 1.0, "seed": 1, "new": 2}}, ["new changed null -> 2"]),
        ({"parents": {"sft": "e"}}, ["parent sft changed"]),
        ({"parents": {"sft": "d", "base": "b"}}, ["model base changed"]),
        ({"data": {"data.prompts": {"a": "2"}}}, ["data.prompts: a was edited"]),
        ({"data": {"data.prompts": {"b": "2"}}}, ["data.prompts: path a -> b"]),
        ({"data": {"data.prompts": {"a": "1", "b": "2"}}}, ["data.prompts: path none -> b"]),
        ({"data": {}}, ["data.prompts: path a -> none"]),
        ({"version": "1"}, ["rlhf changed 0 -> 1"]),
    ],
)
def test_every_change_of_a_fingerprint_is_named(changes, expected):
    now = fingerprint(**changes)
    for earlier in (finished(fingerprint()), fingerprint()):
        assert not now.equals(earlier)
        assert now.changes(earlier) == expected


def test_another_order_of_the_same_paths_is_named():
    made = fingerprint(data={"data.prompts": {"a": "1", "b": "2"}})
    now = fingerprint(data={"data.prompts": {"b": "2", "a": "1"}})
    assert now.changes(made) == ["data.prompts: the order of its paths changed"]


def test_equal_content_under_another_name_is_no_change():
    """A file with the same content and another name is the same data."""
    renamed = fingerprint(data={"data.prompts": {"b": "1"}})
    for now in (fingerprint(), renamed):
        assert now.equals(finished(fingerprint()))


def test_a_value_left_open_equals_that_of_the_earlier_run():
    left, made = fingerprint(open=("seed",)), finished(fingerprint())
    left.config["seed"] = 2
    assert left.equals(made)
    assert left.changes(finished(fingerprint(config={"sft.lr": 2, "seed": 3}))) == [
        "sft.lr changed 2 -> 1.0"
    ]


def test_a_local_model_is_hashed_by_content_and_a_hub_model_by_revision(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"0" * (1 + (16 << 20)))
    before = model_hash(str(tmp_path), None)
    assert before == model_hash(str(tmp_path), None)
    os.utime(tmp_path / "config.json", (0, 0))
    assert before == model_hash(str(tmp_path), None)  # small files count by content
    (tmp_path / "README.md").write_text("a card")
    assert before == model_hash(str(tmp_path), None)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "other.jinja").write_text("{{ 1 }}")
    assert before != model_hash(str(tmp_path), None)
    before = model_hash(str(tmp_path), None)
    os.utime(tmp_path / "model.safetensors", (0, 0))
    assert before != model_hash(str(tmp_path), None)  # big ones by size and time
    assert model_hash("org/name", None) == "hub:org/name@main"
    assert model_hash("org/name", "v1") != model_hash("org/name", "v2")


def test_tokenizer_hash_ignores_padding_and_the_order_of_keys(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": {"a": 0}}, "padding": None}))
    first = tokenizer_hash(tmp_path)
    path.write_text(json.dumps({"padding": {"length": 8}, "model": {"vocab": {"a": 0}}}))
    assert tokenizer_hash(tmp_path) == first
    path.write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))
    assert tokenizer_hash(tmp_path) != first


def test_template_hash_reads_the_tokenizer_configuration_or_the_template_file(tmp_path):
    assert template_hash(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}"}))
    inside = template_hash(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ y }}")
    assert inside is not None
    assert template_hash(tmp_path) not in (None, inside)


def test_a_run_keeps_the_date_of_its_start(tmp_path, monkeypatch):
    def today(day: str) -> None:
        monkeypatch.setattr(
            module, "date", type("Calendar", (), {"today": lambda: date.fromisoformat(day)})
        )

    today("2001-02-03")
    assert run_date(tmp_path / "absent") == run_date(tmp_path) == "2001-02-03"
    keep_date(tmp_path, "2001-02-03")
    today("2001-02-04")
    assert run_date(tmp_path) == "2001-02-03"
    keep_date(tmp_path, "2001-02-04")
    assert run_date(tmp_path) == "2001-02-03"
    assert run_date(tmp_path / "absent") == "2001-02-04"

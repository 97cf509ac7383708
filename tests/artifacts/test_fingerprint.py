"""What decides whether a stage is kept: fingerprints, hashes of models and tokenizers, the day of a run."""

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


def test_order_does_not_matter():
    assert canonical_hash({"a": 1, "b": [1, 2]}) == canonical_hash({"b": [1, 2], "a": 1})
    assert canonical_hash([1, 2]) != canonical_hash([2, 1])


@pytest.mark.parametrize(
    ("changes", "told"),
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
def test_every_change_is_noticed_and_named(changes, told):
    now = fingerprint(**changes)
    for earlier in (finished(fingerprint()), fingerprint()):
        assert not now.equals(earlier)
        assert now.changes(earlier) == told


def test_no_change_is_no_change():
    """The same content under another name is the same."""
    renamed = fingerprint(data={"data.prompts": {"b": "1"}})
    for now in (fingerprint(), renamed):
        assert now.equals(finished(fingerprint()))


def test_what_is_left_to_the_machine_is_what_an_earlier_run_found():
    left, made = fingerprint(open=("seed",)), finished(fingerprint())
    left.config["seed"] = 2
    assert left.equals(made)
    assert left.changes(finished(fingerprint(config={"sft.lr": 2, "seed": 3}))) == [
        "sft.lr changed 2 -> 1.0"
    ]


def test_a_local_model_is_its_contents_and_a_hub_model_its_revision(tmp_path):
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


def test_tokenizer_hash_ignores_how_it_was_last_used(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": {"a": 0}}, "padding": None}))
    first = tokenizer_hash(tmp_path)
    path.write_text(json.dumps({"padding": {"length": 8}, "model": {"vocab": {"a": 0}}}))
    assert tokenizer_hash(tmp_path) == first
    path.write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))
    assert tokenizer_hash(tmp_path) != first


def test_template_hash_finds_the_template_wherever_it_lies(tmp_path):
    assert template_hash(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}"}))
    inside = template_hash(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ y }}")
    assert inside is not None
    assert template_hash(tmp_path) not in (None, inside)


def test_a_run_stays_on_the_day_on_which_it_was_begun(tmp_path, monkeypatch):
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

"""Hashes that decide what is kept: fingerprints, models, tokenizers; and the lock."""

import json
import os
import subprocess
import sys
from datetime import date

import pytest

from rlhf_cli.artifacts import text_hash
from rlhf_cli.artifacts.fingerprint import Fingerprint, model_hash
from rlhf_cli.artifacts.lock import locked
from rlhf_cli.artifacts.manifest import ArtifactError, canonical_hash
from rlhf_cli.artifacts.text_hash import keep_date, run_date, template_hash, tokenizer_hash
from tests.artifacts.test_store import manifest


def fingerprint(**changes) -> Fingerprint:
    made_of = {"config": {"sft.lr": 1.0, "seed": 1}, "data": {"data.prompts": {"a": "1"}}}
    return Fingerprint(**(made_of | {"parents": {"sft": "d"}, "version": "0"} | changes))


def finished(made_of: Fingerprint):
    record = manifest()
    record.config, record.data = made_of.config, made_of.data
    record.parents, record.version = made_of.parents, made_of.version
    return record


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_lock_that_is_another_file_is_refused_and_that_file_stays(tmp_path, link):
    victim = tmp_path / "precious"
    victim.write_text("precious")
    (tmp_path / "run").mkdir()
    link(victim, tmp_path / "run" / ".lock")
    with pytest.raises(ArtifactError, match=r"\.lock is .*no lock file; remove it"):
        with locked(tmp_path / "run", "rlhf run"):
            pass
    assert victim.read_text() == "precious"


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


HOLD = """
import sys, pathlib
from rlhf_cli.artifacts.lock import locked
with locked(pathlib.Path(sys.argv[1]), "rlhf run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ArtifactError, match=f"in use by process {holder.pid} on .*rlhf run"):
        locked(tmp_path, "another").__enter__()
    holder.kill()
    holder.communicate()
    with locked(tmp_path, "another"):
        pass


def test_a_run_stays_on_the_day_on_which_it_was_begun(tmp_path, monkeypatch):
    def today(day: str) -> None:
        monkeypatch.setattr(
            text_hash, "date", type("Calendar", (), {"today": lambda: date.fromisoformat(day)})
        )

    today("2001-02-03")
    assert run_date(tmp_path / "absent") == run_date(tmp_path) == "2001-02-03"
    keep_date(tmp_path, "2001-02-03")
    today("2001-02-04")
    assert run_date(tmp_path) == "2001-02-03"
    keep_date(tmp_path, "2001-02-04")
    assert run_date(tmp_path) == "2001-02-03"
    assert run_date(tmp_path / "absent") == "2001-02-04"

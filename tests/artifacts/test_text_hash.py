"""Hashes of what decides how texts are written: tokenizers, templates, the day."""

import json
from datetime import date

from rlhf_cli.artifacts import text_hash
from rlhf_cli.artifacts.text_hash import keep_date, run_date, template_hash, tokenizer_hash


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

"""`rlhf data check`: what it prints, and its verdict beside that of a run with the same words."""

import json

import pytest

from rlhf_cli.cli import main
from rlhf_cli.config.errors import UserError
from rlhf_cli.pipeline.check_request import read_words

SHOWN = [{"prompt": f"q {i}", "response": f"a {i}"} for i in range(60)]
RANKED = [{"prompt": f"q {i}", "chosen": f"a {i}", "rejected": f"b {i}"} for i in range(60)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """here(name, rows): a file of rows in the working folder, where no stage could start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlhf_cli.pipeline.driver.run_workers", None)

    def file(name: str, rows: list) -> str:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        return name

    return file


def outcome(capsys, *words):
    """(exit code, what was printed, the error)"""
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


DEMOS = "data.demonstrations=[{path: d.jsonl}]"


@pytest.mark.parametrize(
    ("rows", "words", "expected"),
    [
        ([], (DEMOS, "stage=sft"), "d.jsonl is empty (0 bytes)"),
        (SHOWN, (), "data.demonstrations has no rows: name a source"),
        (SHOWN, (DEMOS,), "data.comparisons has no rows: name a source"),
        ([*SHOWN, {}], (DEMOS, "stage=sft", "data.strict=true"), "d.jsonl:61: missing column"),
    ],
)
def test_what_a_run_refuses_is_refused_in_the_same_words(here, capsys, rows, words, expected):
    here("d.jsonl", rows)
    checked = outcome(capsys, "data", "check", "data=generic", *words)
    ran = outcome(capsys, "run", "data=generic", *words)
    assert checked[0] == ran[0] == 2
    assert expected in checked[2]
    assert checked[2].strip().startswith(ran[2].strip())  # and may add what to do


def test_a_role_that_no_stage_reads_does_not_decide(here, capsys):
    here("d.jsonl", SHOWN)
    here("c.jsonl", [{}])
    words = ("data=generic", DEMOS, "data.comparisons=[{path: c.jsonl}]")
    code, said, _ = outcome(capsys, "data", "check", *words, "stage=sft")
    assert code == 0
    assert "missing column" in said
    assert said.endswith("data check passed\n")
    assert outcome(capsys, "data", "check", *words)[0] == 2


def test_files_are_checked_under_the_role_of_their_columns(here, capsys):
    here("d.jsonl", SHOWN)
    here("c.jsonl", RANKED)
    code, said, _ = outcome(capsys, "data", "check", "d.jsonl", "c.jsonl", "data.strict=true")
    assert code == 0
    assert "d.jsonl: demonstrations (columns prompt, response: form prompt_response)" in said
    assert "c.jsonl: comparisons (columns chosen, rejected: form pair)" in said
    assert "comparisons: 60 rows read, 60 records kept" in said
    assert "for sft, rm, ppo, evaluate: rlhf run data=generic" in said


def test_the_first_three_of_a_kind_or_all_of_them(here, capsys):
    here(
        "d.jsonl", [*SHOWN, *[{"prompt": "q", "response": ""}] * 3, {"prompt": "q", "response": ""}]
    )
    words = ("data", "check", "d.jsonl", "data.max_bad_fraction=1")
    said = outcome(capsys, *words)[1]
    assert "d.jsonl:63" in said
    assert "d.jsonl:64" not in said
    assert "d.jsonl:64" in outcome(capsys, *words, "--all")[1]


def test_json_is_all_that_is_printed(here, capsys):
    here("d.jsonl", [*SHOWN, {"prompt": "q", "response": ""}, SHOWN[0]])
    code, said, error = outcome(capsys, "data", "check", "d.jsonl", "--json", "data.strict=true")
    found = json.loads(said)
    (report,) = found["roles"]
    assert (code, found["stages"]) == (2, ["sft"])
    assert found["refused"] in error
    assert report["rows"] == {"d.jsonl": 62}
    assert [(f["kind"], f["count"], f["rows"][0]["line"]) for f in report["findings"]] == [
        ("bad", 1, 61),
        ("note", 1, 62),
    ]


def test_words_are_files_options_and_keys(here):
    name = here("a b'c.jsonl", SHOWN)
    found = read_words([name, "--all", "--config-dir", "mine", "seed=1", "data.template=hh"])
    assert (found.every_row, found.as_json, found.any_stage) == (True, False, True)
    assert found.words == [
        "data=generic",
        r"data.demonstrations=[{path: 'a b\'c.jsonl'}]",
        "--config-dir",
        "mine",
        "seed=1",
        "data.template=hh",
    ]
    assert read_words([name, "data=own", "stage=sft"]).words[1:] == ["data=own", "stage=sft"]
    assert not read_words([name, "stage=sft"]).any_stage
    with pytest.raises(UserError, match="both given"):
        read_words([name, DEMOS])


def test_a_quoted_path_comes_through(here, capsys):
    name = here("w eird näme [1], 'x'.jsonl", SHOWN)
    assert outcome(capsys, "data", "check", name)[0] == 0

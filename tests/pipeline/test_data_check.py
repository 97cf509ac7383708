"""`rlhf data check`: its output, and that it refuses what a run with the same arguments refuses."""

import json

import pytest

from rlhf_cli.cli import main
from rlhf_cli.config.errors import UserError
from rlhf_cli.pipeline.check_request import read_words

DEMONSTRATIONS = [{"prompt": f"q {i}", "response": f"a {i}"} for i in range(60)]
COMPARISONS = [{"prompt": f"q {i}", "chosen": f"a {i}", "rejected": f"b {i}"} for i in range(60)]


@pytest.fixture
def write_rows(tmp_path, monkeypatch):
    """Return write_rows(name, rows), which writes a file of rows; no stage can start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlhf_cli.pipeline.driver.run_workers", None)

    def file(name: str, rows: list) -> str:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        return name

    return file


def outcome(capsys, *words):
    """Run the command line; return (exit code, output, errors)."""
    code = main(list(words))
    output = capsys.readouterr()
    return code, output.out, output.err


DEMOS = "data.demonstrations=[{path: d.jsonl}]"


@pytest.mark.parametrize(
    ("rows", "words", "expected"),
    [
        ([], (DEMOS, "stage=sft"), "d.jsonl is empty (0 bytes)"),
        (DEMONSTRATIONS, (), "data.demonstrations has no rows: name a source"),
        (DEMONSTRATIONS, (DEMOS,), "data.comparisons has no rows: name a source"),
        (
            [*DEMONSTRATIONS, {}],
            (DEMOS, "stage=sft", "data.strict=true"),
            "d.jsonl:61: missing column",
        ),
    ],
)
def test_data_check_refuses_what_a_run_refuses_with_the_same_message(
    write_rows, capsys, rows, words, expected
):
    write_rows("d.jsonl", rows)
    checked = outcome(capsys, "data", "check", "data=generic", *words)
    ran = outcome(capsys, "run", "data=generic", *words)
    assert checked[0] == ran[0] == 2
    assert expected in checked[2]
    assert checked[2].strip().startswith(ran[2].strip())  # and may add what to do


def test_bad_rows_of_a_role_that_no_selected_stage_reads_do_not_fail_the_check(write_rows, capsys):
    write_rows("d.jsonl", DEMONSTRATIONS)
    write_rows("c.jsonl", [{}])
    words = ("data=generic", DEMOS, "data.comparisons=[{path: c.jsonl}]")
    code, output, _ = outcome(capsys, "data", "check", *words, "stage=sft")
    assert code == 0
    assert "missing column" in output
    assert output.endswith("data check passed\n")
    assert outcome(capsys, "data", "check", *words)[0] == 2


def test_files_are_checked_under_the_role_of_their_columns(write_rows, capsys):
    write_rows("d.jsonl", DEMONSTRATIONS)
    write_rows("c.jsonl", COMPARISONS)
    code, output, _ = outcome(capsys, "data", "check", "d.jsonl", "c.jsonl", "data.strict=true")
    assert code == 0
    assert "d.jsonl: demonstrations (columns prompt, response: form prompt_response)" in output
    assert "c.jsonl: comparisons (columns chosen, rejected: form pair)" in output
    assert "comparisons: 60 rows read, 60 records kept" in output
    assert (
        "data check passed for sft,rm,ppo,evaluate; run it with\n  rlhf run data=generic" in output
    )
    assert "'stage=[sft,rm,ppo,evaluate]'" in output


def test_three_findings_per_kind_are_shown_and_all_of_them_with_the_option_all(write_rows, capsys):
    write_rows(
        "d.jsonl",
        [*DEMONSTRATIONS, *[{"prompt": "q", "response": ""}] * 3, {"prompt": "q", "response": ""}],
    )
    words = ("data", "check", "d.jsonl", "data.max_bad_fraction=1")
    output = outcome(capsys, *words)[1]
    assert "d.jsonl:63" in output
    assert "d.jsonl:64" not in output
    assert "d.jsonl:64" in outcome(capsys, *words, "--all")[1]


def test_the_option_json_prints_json_alone(write_rows, capsys):
    write_rows("d.jsonl", [*DEMONSTRATIONS, {"prompt": "q", "response": ""}, DEMONSTRATIONS[0]])
    code, output, error = outcome(capsys, "data", "check", "d.jsonl", "--json", "data.strict=true")
    found = json.loads(output)
    (report,) = found["roles"]
    assert (code, found["stages"]) == (2, ["sft"])
    assert found["refused"] in error
    assert report["rows"] == {"d.jsonl": 62}
    assert [(f["kind"], f["count"], f["rows"][0]["line"]) for f in report["findings"]] == [
        ("bad", 1, 61),
        ("note", 1, 62),
    ]


def test_arguments_are_files_options_or_configuration_keys(write_rows):
    name = write_rows("a b'c.jsonl", DEMONSTRATIONS)
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


def test_a_path_with_quotes_spaces_and_brackets_is_read(write_rows, capsys):
    name = write_rows("w eird näme [1], 'x'.jsonl", DEMONSTRATIONS)
    assert outcome(capsys, "data", "check", name)[0] == 0

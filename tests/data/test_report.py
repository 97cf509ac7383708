"""The report says the same as a table and as plain lines, and its totals add up."""

import io

from rich.console import Console

from rlhf_cli.data.records import LeftOut, Origin, RowError
from rlhf_cli.data.report import EXAMPLES, Report


def example():
    report = Report(role="comparisons", num_kept=90, num_train=80, num_eval=10)
    report.rows["[red].jsonl"] = 100
    for line in range(1, 8):
        report.reject(Origin("[red].jsonl", line, line), RowError("empty chosen", f"row {line}"))
    for line in range(8, 11):
        report.reject(Origin("[red].jsonl", line, line), LeftOut("prompt too long"))
    report.notes["response cut"] = 4
    return report


def test_totals():
    report = example()
    assert report.num_bad == 7
    assert report.bad_fraction == 7 / 97
    assert report.headline() == (
        "comparisons: 100 rows read, 90 records kept (80 train, 10 held out), "
        "7 bad (7.2%), 3 left out"
    )


def test_only_the_first_examples_are_kept():
    assert [str(row) for row in example().examples["empty chosen"]] == [
        f"[red].jsonl:{line}: empty chosen: row {line}" for line in range(1, EXAMPLES + 1)
    ]


def test_plain_lines_say_everything():
    text = example().plain()
    for part in ("100  [red].jsonl", "bad            7  empty chosen", "[red].jsonl:1: row 1"):
        assert part in text
    assert "left out       3  prompt too long" in text
    assert "note           4  response cut" in text


def test_the_table_says_the_same_and_takes_no_text_for_markup():
    file = io.StringIO()
    Console(file=file, width=160).print(example().table())
    said = file.getvalue()
    for part in ("[red].jsonl:1: row 1", "empty chosen", "prompt too long", "response cut"):
        assert part in said


def test_withdrawn_and_left_out_records_are_no_longer_kept():
    report = example()
    report.withdraw(Origin("a", 1), RowError("responses alike after truncation"))
    report.leave_out("left out to keep the weight of a", 9)
    assert report.num_kept == 80
    assert report.num_bad == 8
    assert report.left_out.total() == 12


def test_the_verdict_is_about_the_worst_first():
    report = example()
    assert report.verdict() is None
    report.max_bad_fraction = 0.01
    assert "more than data.max_bad_fraction=0.01" in report.verdict()
    report.problems.append("data.comparisons: none is left to hold out")
    assert report.verdict() == "data.comparisons: none is left to hold out"


def test_nothing_left_names_the_first_reason():
    report = Report(role="prompts")
    report.rows["a.jsonl"] = 1
    report.reject(Origin("a.jsonl", 1, 1), LeftOut("prompt too long", "900 tokens"))
    assert report.verdict() == (
        "data.prompts: no row is left; first: a.jsonl:1: prompt too long: 900 tokens"
    )

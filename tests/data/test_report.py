"""The report on data, as lines and as JSON, and its totals."""

import json

from rlhf_cli.data.records import Filtered, Origin, RowError
from rlhf_cli.data.report import EXAMPLES, DataReport


def example():
    report = DataReport(role="comparisons", num_kept=90, num_train=80, num_eval=10)
    report.rows["[red].jsonl"] = 100
    for line in range(1, 8):
        report.reject(Origin("[red].jsonl", line, line), RowError("empty chosen", f"row {line}"))
    for line in range(8, 11):
        report.reject(Origin("[red].jsonl", line, line), Filtered("prompt too long"))
    report.notes["response cut"] = 4
    return report


def test_the_totals_of_a_report_add_up():
    report = example()
    assert report.num_bad == 7
    assert report.bad_fraction == 7 / 97
    assert report.headline() == (
        "comparisons: 100 rows read, 90 records kept (80 train, 10 held out), "
        "7 bad (7.2%), 3 left out"
    )


def test_a_mixture_names_its_records_per_epoch():
    report = DataReport(role="demonstrations", num_kept=25, num_train=10, num_select=2, num_eval=3)
    assert "25 records kept (10 train per epoch, 2 to select by, 3 held out)" in report.headline()


def test_only_the_first_examples_are_kept():
    assert [str(row) for row in example().examples["empty chosen"]] == [
        f"[red].jsonl:{line}: empty chosen: row {line}" for line in range(1, EXAMPLES + 1)
    ]


def test_all_examples_are_kept_on_request():
    report = DataReport(role="comparisons", num_examples=None)
    for line in range(1, 100):
        report.reject(Origin("a.jsonl", line, line), RowError("empty chosen"))
    assert [row.origin.line for row in report.examples["empty chosen"]] == list(range(1, 100))


def test_details_list_all_findings_with_complete_examples():
    text = [" " * indent + text for indent, text, _ in example().details()]
    assert text[:3] == [
        "  read        100 [red].jsonl",
        "  bad           7 empty chosen",
        "      [red].jsonl:1: row 1",
    ]
    assert "  left out      3 prompt too long" in text
    assert "  note          4 response cut" in text


def test_a_detail_of_several_rows_is_shown_once_above_their_origins():
    report = DataReport(role="comparisons", num_examples=None)
    hint = "a file without a header needs columns by number"
    details = [f"found 4; {hint}", f"found 5; {hint}", "found 1; delimiter", "", "same", "same"]
    for line, detail in enumerate(details, start=1):
        report.reject(Origin("a.csv", line, line), RowError("fields", detail))
    assert [" " * indent + text for indent, text, _ in report.details()] == [
        "  bad           6 fields",
        f"      {hint}",
        "        a.csv:1: found 4",
        "        a.csv:2: found 5",
        "      a.csv:3: found 1; delimiter",
        "      a.csv:4",
        "      same",
        "        a.csv:5",
        "        a.csv:6",
    ]
    assert report.as_json()["findings"][0]["rows"][1]["detail"] == f"found 5; {hint}"


def test_the_json_of_a_report_has_the_same_content():
    found = json.loads(json.dumps(example().as_json()))
    assert (found["role"], found["rows"], found["kept"]) == (
        "comparisons",
        {"[red].jsonl": 100},
        90,
    )
    assert found["sides"] == {"train": 80, "select": 0, "held_out": 10}
    bad, out, note = found["findings"]
    assert (bad["kind"], bad["what"], bad["count"]) == ("bad", "empty chosen", 7)
    assert bad["rows"][0] == {"source": "[red].jsonl", "row": 1, "line": 1, "detail": "row 1"}
    assert (out["kind"], out["count"], note["count"]) == ("left out", 3, 4)
    assert found["refused"] is None


def test_withdrawn_and_left_out_records_are_no_longer_kept():
    report = example()
    report.withdraw(Origin("a", 1), RowError("responses alike after truncation"))
    report.leave_out("left out to keep the weight of a", 9)
    assert report.num_kept == 80
    assert report.num_bad == 8
    assert report.left_out.total() == 12


def test_the_verdict_names_the_most_severe_problem():
    report = example()
    assert report.verdict() is None
    report.max_bad_fraction = 0.01
    assert "more than data.max_bad_fraction=0.01" in report.verdict()
    report.problems.append("data.comparisons: none is left to hold out")
    assert report.verdict() == "data.comparisons: none is left to hold out"


def test_the_verdict_with_strict_is_the_first_bad_row():
    report = example()
    report.strict = True
    report.problems.append("another problem")
    assert report.verdict() == (
        "[red].jsonl:1: empty chosen: row 1 "
        "(data.strict=true stops here; data.strict=false skips the row)"
    )
    report = DataReport(role="comparisons", strict=True, num_kept=3)
    report.rows["a.jsonl"] = 4
    report.reject(Origin("a.jsonl", 1, 1), Filtered("prompt too long"))
    assert report.verdict() is None


def test_a_report_without_rows_is_refused():
    report = DataReport(role="comparisons")
    assert report.verdict() == (
        "data.comparisons has no rows: name a source, or set parents.rm=<a reward model's folder>"
    )
    report.rows["a.jsonl"] = 0
    assert report.verdict() == "data.comparisons has no rows: nothing in a.jsonl"


def test_the_verdict_of_no_remaining_rows_names_the_first_reason():
    report = DataReport(role="prompts")
    report.rows["a.jsonl"] = 1
    report.reject(Origin("a.jsonl", 1, 1), Filtered("prompt too long", "900 tokens"))
    assert report.verdict() == (
        "data.prompts: no row is left; first: a.jsonl:1: prompt too long: 900 tokens"
    )

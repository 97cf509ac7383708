"""Columns with wrong names are refused with the nearest right name."""

import pytest

from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats.table import check_format, convert
from rlhf_cli.data.records import DataError, Origin, RowError


def refused(row, role, path="a.jsonl", **source):
    with pytest.raises(RowError) as error:
        convert(row, Origin(path, 1, 1), Source(path=path, **source), role)
    assert error.value.reason == "missing column"
    return error.value.detail


@pytest.mark.parametrize(
    ("row", "role", "columns"),
    [
        ({"promt": "a", "response": "b"}, "demonstrations", "{prompt: promt}"),
        (
            {"Prompt": "a", "Response": "b"},
            "demonstrations",
            "{prompt: Prompt, response: Response}",
        ),
        (
            {"prompt": "a", "Chosen ": "b", "rejectd": "c"},
            "comparisons",
            "{chosen: Chosen , rejected: rejectd}",
        ),
        ({"mesages": []}, "demonstrations", "{messages: mesages}"),
    ],
)
def test_a_misspelt_column_is_suggested(row, role, columns):
    assert refused(row, role).endswith(f"; did you mean columns: {columns}?")


def test_no_column_is_suggested_that_would_not_complete_a_form():
    assert "did you mean" not in refused({"promt": "a", "frage": "b"}, "comparisons")
    assert "did you mean" not in refused({"q0": "a", "a0": "b"}, "demonstrations")


def test_a_table_without_a_header_is_refused_with_columns_by_number():
    detail = refused({"q0": "a", "a0": "b"}, "demonstrations", path="a.csv.gz")
    assert detail.endswith("without a header, by number: columns: {prompt: 0, ..}")


def test_a_missing_nested_column_is_refused_with_the_existing_ones():
    detail = refused({"meta": {"q": "a", "x": 1}}, "prompts", columns={"prompt": "meta.qq"})
    assert detail.endswith("is not there: meta holds q, x")
    detail = refused({"meta": "a"}, "prompts", columns={"prompt": "meta.q"})
    assert detail.endswith("is not there: meta holds a text")


def test_invalid_keys_of_columns_are_refused_before_reading():
    with pytest.raises(DataError, match=r"no field promt; did you mean prompt\?"):
        check_format(Source(path="a", columns={"promt": "prompt"}), "prompts")
    with pytest.raises(DataError, match="no field zzz; the fields: prompt, messages"):
        check_format(Source(path="a", columns={"zzz": "prompt"}), "prompts")
    with pytest.raises(DataError, match="mixes numbers, for a file without a header, and names"):
        check_format(Source(path="a", columns={"prompt": "0", "response": "a"}), "prompts")
    check_format(Source(path="a", columns={"instruction": "a", "prediction 1": "b"}), "prompts")


PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("more", "columns", "meta"),
    [
        ({}, {}, {}),
        ({"subset": "Chat", "worker": 12}, {}, {"subset": "Chat", "annotator": "12"}),
        ({"annotator": "ann", "worker": 12}, {}, {"annotator": "ann"}),
        ({"annotator": " ", "subset": None}, {}, {}),
        ({"annotator_id": float("nan"), "subset": ["x"]}, {}, {}),
        ({"by": "bo", "worker": 12}, {"annotator": "by"}, {"annotator": "bo"}),
    ],
)
def test_annotator_and_subset_of_a_comparison_are_kept(more, columns, meta):
    source = Source(path="a.jsonl", columns=columns)
    (record,), fields = convert(PAIR | more, Origin("a.jsonl", 1, 1), source, "comparisons")
    assert record.meta == meta
    assert set(more) - set(columns.values()) - {"worker"} <= fields.read


def test_only_comparisons_have_an_annotator():
    row = PAIR | {"subset": "Chat"}
    (record,), fields = convert(row, Origin("a.jsonl", 1, 1), Source(path="a.jsonl"), "prompts")
    assert record.meta == {} and "subset" not in fields.read

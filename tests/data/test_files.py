"""Every kind of file gives the same rows, each with its line; what cannot be read is said."""

import gzip
import json

import pytest

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError, RowError
from rlhf_cli.data.sources import rows, source_hash

ROWS = [{"prompt": "a\nb", "response": 'say "c", d'}, {"prompt": "é 你", "response": "\tx"}]


def read(path, **source):
    return list(rows(Source(path=str(path), **source)))


def values(path, **source):
    return [row for _, row in read(path, **source)]


def lines(path, **source):
    return [origin.line for origin, _ in read(path, **source)]


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.ndjson", "A.JSONL"]
)
def test_json_in_every_dress_gives_the_same_rows(write, name):
    content = json.dumps(ROWS) if ".json" in name and "l" not in name else ROWS
    assert values(write(name, content)) == ROWS


def test_csv_keeps_quoted_newlines_and_counts_lines_of_the_file(write):
    path = write("a.csv", 'prompt,response\n"a\nb","say ""c"", d"\né 你,x\n\n')
    assert values(path) == [ROWS[0], {"prompt": "é 你", "response": "x"}]
    assert lines(path) == [2, 4]


def test_a_quote_in_a_tsv_is_a_character(write):
    path = write("a.tsv", 'prompt\tresponse\n"Stars" shine.\tyes\n')
    assert values(path) == [{"prompt": '"Stars" shine.', "response": "yes"}]


def test_columns_by_number_say_that_there_is_no_header(write):
    path = write("a.tsv", "q1\ta1\nq2\ta2\n")
    assert values(path, columns={"prompt": "0", "response": "1"}) == [
        {"0": "q1", "1": "a1"},
        {"0": "q2", "1": "a2"},
    ]
    assert values(path) == [{"q1": "q2", "a1": "a2"}]


def test_a_row_with_another_number_of_fields_is_bad(write):
    found = values(write("a.csv", "prompt,response\nq,a,b\nq,a\n"))
    assert isinstance(found[0], RowError)
    assert "found 3, the header has 2" in found[0].detail
    assert found[1] == {"prompt": "q", "response": "a"}


def test_parquet_gives_rows_without_lines(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert [row for _, row in found] == ROWS
    assert str(found[1][0]).endswith("a.parquet row 2")


def test_text_files_give_a_text_a_line(write):
    assert values(write("a.txt", "one\n\n two \r\n")) == [{"text": "one"}, {"text": " two "}]


def test_a_broken_line_is_one_bad_row_and_the_rest_is_read(write):
    found = read(write("a.jsonl", '{"prompt": "a"}\n{"prompt": \n\n{"prompt": "b"}\n'))
    assert found[0][1] == {"prompt": "a"}
    assert isinstance(found[1][1], RowError)
    assert found[1][1].reason == "not valid JSON"
    assert "line 2" in found[1][1].detail
    assert str(found[2][0]).endswith("a.jsonl:4")


def test_a_broken_array_stops_with_file_line_and_remedy(write):
    path = write("a.json", '[{"prompt": "a"},\n {"prompt": oops}]')
    with pytest.raises(DataError, match=r"a\.json:2: not valid JSON at line 2, column 13.*mend"):
        values(path)


def test_elements_of_an_array_know_their_line(write):
    path = write("a.json", json.dumps(ROWS, indent=1))
    origins = [origin for origin, _ in read(path)]
    assert [(o.row, o.line) for o in origins] == [(1, 2), (2, 6)]
    assert str(origins[0]).endswith("a.json:2 (row 1)")


def test_json_lines_under_the_name_json_are_read(write):
    path = write("a.json", '{"prompt": "a"}\n{"prompt": "b"}\n')
    assert values(path) == [{"prompt": "a"}, {"prompt": "b"}]


def test_an_object_gives_its_one_list_of_rows_or_the_texts_at_its_leaves(write):
    assert values(write("a.json", '{"canary": "x", "examples": [{"input": "i"}]}')) == [
        {"input": "i"}
    ]
    nested = '{"actors": {"A B": ["A is ", "B is "]}, "actresses": {"C": ["C is "]}}'
    assert values(write("b.json", nested)) == [
        {"prompt": "A is "},
        {"prompt": "B is "},
        {"prompt": "C is "},
    ]


def test_a_list_of_texts_gives_texts_and_a_number_is_a_bad_row(write):
    found = values(write("a.json", '["one", 2]'))
    assert found[0] == {"text": "one"}
    assert isinstance(found[1], RowError)
    assert "int" in found[1].detail


def test_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffprompt,response\r\nq,a\r\n".encode())
    assert values(path) == [{"prompt": "q", "response": "a"}]


def test_what_is_not_utf8_or_not_gzip_is_one_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    (tmp_path / "b.jsonl.gz").write_bytes(b'{"prompt": "a"}\n')
    for name in ("a.jsonl", "b.jsonl.gz"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            values(tmp_path / name)


def test_limit_takes_the_first_rows(write):
    path = write("a.jsonl", [{"prompt": str(i)} for i in range(9)])
    assert values(path, limit=2) == [{"prompt": "0"}, {"prompt": "1"}]


def test_escapes_become_characters_only_when_asked_for(write):
    path = write("a.tsv", "q\\nr\ta\\\\n\\t.\n")
    columns = {"prompt": "0", "response": "1"}
    assert values(path, columns=columns) == [{"0": "q\\nr", "1": "a\\\\n\\t."}]
    assert values(path, columns=columns, unescape=True) == [{"0": "q\nr", "1": "a\\n\t."}]


def test_escapes_inside_lists_and_objects(write):
    path = write("a.jsonl", [{"messages": [{"role": "user", "content": "a\\nb"}], "n": 1}])
    assert values(path, unescape=True) == [
        {"messages": [{"role": "user", "content": "a\nb"}], "n": 1}
    ]


def test_a_pattern_reads_all_its_files_in_order(write, tmp_path):
    write("part-1.jsonl", [{"prompt": "b"}])
    write("part-0.jsonl.gz", [{"prompt": "a"}])
    found = read(tmp_path / "part-*")
    assert [row["prompt"] for _, row in found] == ["a", "b"]
    assert "part-0.jsonl.gz:1" in str(found[0][0])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing/here.jsonl", "does not exist"),
        ("/no/such/folder", "does not exist"),
        ("./data", "does not exist"),
        ("no-*.jsonl", "does not exist"),
    ],
)
def test_an_absent_file_is_never_taken_for_a_hub_id(path, said):
    with pytest.raises(DataError, match=said):
        values(path)


def test_an_unknown_kind_of_file_names_the_known_ones(write):
    with pytest.raises(DataError, match=r"a\.xml: unknown kind of file; known: \.json"):
        values(write("a.xml", "<a/>"))


def test_the_hash_is_of_the_bytes(write, tmp_path):
    first = source_hash(Source(path=str(write("a.jsonl", ROWS))))
    assert first == source_hash(Source(path=str(write("a.jsonl", ROWS))))
    assert first != source_hash(Source(path=str(write("a.jsonl", ROWS[:1]))))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write("{}")
    assert len(source_hash(Source(path=str(tmp_path / "b.jsonl.gz")))) == 64

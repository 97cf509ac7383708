"""csv and tsv: quotes, delimiters and headers; ambiguous files are refused."""

import pytest

from rlhf_cli.config.schema import ConfigError, Source
from rlhf_cli.data.records import DataError, RowError
from tests.support.data_sources import ROWS, lines, read, values


def test_csv_keeps_quoted_newlines_and_counts_lines_of_the_file(write):
    path = write("a.csv", 'prompt,response\n"a\nb","say ""c"", d"\né 你,x\n\n')
    assert values(path) == [ROWS[0], {"prompt": "é 你", "response": "x"}]
    assert lines(path) == [2, 4]


def test_a_quote_in_a_tsv_is_a_character(write):
    path = write("a.tsv", 'prompt\tresponse\n"Stars" shine.\tyes\n')
    assert values(path) == [{"prompt": '"Stars" shine.', "response": "yes"}]


def test_columns_by_number_read_a_table_without_a_header(write):
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


def test_line_ends_within_a_cell_are_kept(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'prompt,response\r\n"a\r\nb",c\r\nd,e\r\n')
    assert values(tmp_path / "a.csv") == [
        {"prompt": "a\r\nb", "response": "c"},
        {"prompt": "d", "response": "e"},
    ]
    assert lines(tmp_path / "a.csv") == [2, 4]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ('"q2,a2', r"a\.csv:3: a quote that opens in this row is never closed"),
        ('"q2" x,a2', r"a\.csv:3: text follows a closing quote \(line 3"),
        ('"q2,a2\nq,"a"', r"a\.csv:3: text follows a closing quote \(line 4"),
    ],
)
def test_a_quote_that_is_not_closed_refuses_the_file(write, broken, expected):
    text = "prompt,response\nq1,a1\n" + broken + "\n" + "q,a\n" * 30
    with pytest.raises(DataError, match=expected + ".*write a quote inside a quoted cell twice"):
        values(write("a.csv", text))


def test_a_quote_inside_a_plain_cell_is_a_character(write):
    assert values(write("a.csv", 'prompt,response\na 5" tree,b\n')) == [
        {"prompt": 'a 5" tree', "response": "b"}
    ]


def test_two_columns_with_the_same_name_are_refused_unless_unnamed(write):
    with pytest.raises(DataError, match=r"a\.csv:1: more than one column is named response"):
        values(write("a.csv", "prompt,response,response\nq,a,b\n"))
    assert values(write("b.csv", "prompt,response,,\nq,a,,\n"))[0]["response"] == "a"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_detected(write, name, delimiter):
    rows = [("prompt", "response"), ("a b", "c, d" if delimiter == ";" else "c d"), ("e", "f")]
    path = write(name, "".join(delimiter.join(row) + "\n" for row in rows))
    assert values(path) == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_an_ambiguous_delimiter_is_refused_with_the_key(write):
    path = write("a.csv", "q, one;a\nq, two;b\n")
    columns = {"prompt": "0", "response": "1"}
    with pytest.raises(DataError, match="separated by comma or semicolon; set delimiter"):
        values(path, columns=columns)
    assert values(path, columns=columns, delimiter=";")[0] == {"0": "q, one", "1": "a"}


def test_a_delimiter_is_one_character_or_tab():
    assert Source(path="a", delimiter="tab").delimiter == "\t"
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(ConfigError, match="must be one character, or tab"):
            Source(path="a", delimiter=wrong)


def test_a_table_of_one_column_is_read(write):
    assert values(write("a.csv", "text\none\ntwo\n")) == [{"text": "one"}, {"text": "two"}]
    found = values(write("b.csv", "text\none, two\nthree\n"))
    assert isinstance(found[0], RowError)
    assert found[1] == {"text": "three"}


def test_rows_without_a_header_have_as_many_fields_as_the_first(write):
    found = values(write("a.csv", "q,a\nq\nq,a\n"), columns={"prompt": "0", "response": "1"})
    assert found[1].reason == "wrong number of fields"
    assert "found 1, the first row has 2" in found[1].detail
    assert [found[0], found[2]] == [{"0": "q", "1": "a"}] * 2


def test_a_repeated_header_is_a_bad_row(write):
    found = values(write("a.csv", "prompt,response\nq,a\n\ufeffprompt,response\nr,b\n"))
    assert found[1].reason == "the header again"
    assert [found[0]["prompt"], found[2]["prompt"]] == ["q", "r"]


@pytest.mark.parametrize("cell", ['"say ""no"""', '"one', '"'])
def test_a_quoted_cell_of_a_tsv_is_a_bad_row(write, cell):
    found = values(write("a.tsv", f"prompt\tresponse\nq\t{cell}\nr\tb\n"))
    assert found[0].reason == "a quoted cell in a .tsv"
    assert found[1] == {"prompt": "r", "response": "b"}


def test_bytes_that_are_not_utf8_are_one_bad_row(tmp_path):
    (tmp_path / "a.csv").write_bytes("prompt,response\nq,a\né,b\nr,c\n".encode("latin-1"))
    found = read(tmp_path / "a.csv")
    assert [row["prompt"] for _, row in found if isinstance(row, dict)] == ["q", "r"]
    assert found[1][1].reason == "not UTF-8 text"
    assert found[1][0].line == 3


def test_a_cell_above_the_limit_is_refused_with_its_line(write, monkeypatch):
    monkeypatch.setattr("rlhf_cli.data.tables.LIMIT", 100)
    text = "prompt,response\nq,a\n" + '"' + "x\n" * 90 + '",b\n'
    with pytest.raises(DataError, match=r"a\.csv:3: a cell above .* is a quote not closed"):
        values(write("a.csv", text))

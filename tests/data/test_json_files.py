"""JSON lines and JSON documents: strict reading, each error with its line."""

import json

import pytest

from rlhf_cli.data.records import DataError, RowError
from tests.support.data_sources import ROWS, read, values

GOOD = '{"prompt": "a"}'


def test_an_invalid_line_is_one_bad_row_and_the_others_are_read(write):
    found = read(write("a.jsonl", '{"prompt": "a"}\n{"prompt": \n\n{"prompt": "b"}\n'))
    assert found[0][1] == {"prompt": "a"}
    assert isinstance(found[1][1], RowError)
    assert found[1][1].reason == "not valid JSON"
    assert found[1][0].line == 2 and found[1][1].detail == "column 13: Expecting value"
    assert str(found[2][0]).endswith("a.jsonl:4")


def test_an_invalid_array_is_refused_with_file_line_and_remedy(write):
    path = write("a.json", '[{"prompt": "a"},\n {"prompt": oops}]')
    with pytest.raises(DataError, match=r"a\.json:2: not valid JSON at column 13.*repair"):
        values(path)


def test_elements_of_an_array_have_their_line(write):
    path = write("a.json", json.dumps(ROWS, indent=1))
    origins = [origin for origin, _ in read(path)]
    assert [(o.row, o.line) for o in origins] == [(1, 2), (2, 6)]
    assert str(origins[0]).endswith("a.json:2 (row 1)")


def test_metric_lines_in_a_file_named_json_are_read(write):
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


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ('{"prompt": "a", "response": "b", "prompt": "c"}', "a key written twice", "'prompt'"),
        ('{"prompt": {"x": 1, "x": 2}}', "a key written twice", "'x'"),
        (r'{"prompt": "cut \ud83d here"}', "half a character", r"\ud83d"),
        ('{"prompt": ' + "9" * 6000 + "}", "a number too long", "4300 digits"),
        ('{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply", ""),
        ('"a text"', "not an object", "a text among objects"),
        ("[1]", "not an object", "found list, expected {key: value}; a file that is one array"),
        ("null", "not an object", "found null"),
        ('{"prompt": "b"} {"prompt": "c"}', "not valid JSON", "column 16: Extra data"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "array.json"])
def test_an_invalid_row_is_one_bad_row_with_its_line(write, name, line, reason, detail):
    text = f"{GOOD}\n{line}\n{GOOD}\n"
    text = f"[{GOOD},\n{line},\n{GOOD}]" if name == "array.json" else text
    path = write(name, text)
    if name == "array.json" and reason in ("nested too deeply", "not valid JSON"):
        with pytest.raises(DataError, match=rf"{name}:2: {reason}"):
            values(path)
        return
    found = read(path)
    assert [row for _, row in found[::2]] == [{"prompt": "a"}] * 2
    assert found[1][0].line == 2
    assert found[1][1].reason == reason
    assert detail in found[1][1].detail or name == "array.json"


def test_surrogate_pairs_are_read_as_one_character(write):
    assert values(write("a.jsonl", r'{"prompt": "\ud83d\ude42"}')) == [{"prompt": "🙂"}]


def test_an_object_among_texts_is_a_bad_row(write):
    found = values(write("a.jsonl", '"one"\n{"prompt": "a"}\n"two"\n'))
    assert found[::2] == [{"text": "one"}, {"text": "two"}]
    assert found[1].reason == "not a text"


def test_only_line_feeds_end_a_line(write):
    row = {"prompt": "a\u2028b\u2029c\u0085d\x0be", "response": "f"}
    text = json.dumps(row, ensure_ascii=False) + "\n" + GOOD + "\n"
    for name in ("a.jsonl", "a.json"):
        assert values(write(name, text)) == [row, {"prompt": "a"}]


@pytest.mark.parametrize("more", [f"[{GOOD}]", "oops", "]", ","])
def test_text_after_an_array_is_refused(write, more):
    with pytest.raises(DataError, match=r"a\.json:3: more text follows the end of the array"):
        values(write("a.json", f"[{GOOD},\n{GOOD}]\n{more}"))


@pytest.mark.parametrize(
    "text", [f"[{GOOD} {GOOD}]", f"[{GOOD},]", f"[{GOOD},,{GOOD}]", f"[{GOOD}"]
)
def test_a_malformed_array_is_refused_with_its_line(write, text):
    with pytest.raises(DataError, match=r"a\.json:1: not valid JSON at column 1[78]"):
        values(write("a.json", text))


def test_elements_longer_than_a_chunk_are_read_completely(write, monkeypatch):
    monkeypatch.setattr("rlhf_cli.data.json_values.CHUNK", 3)
    found = [{"prompt": "x" * n, "n": n} for n in (1, 50, 2, 7)]
    for indent in (None, 1):
        path = write("a.json", json.dumps(found, indent=indent))
        assert values(path) == found
    assert [origin.line for origin, _ in read(path)] == [2, 6, 10, 14]
    with pytest.raises(DataError, match=r"a\.json:8: not valid JSON at column 3"):
        values(write("a.json", path.read_text().replace('"n": 50', "oops")))


def test_an_element_or_a_document_above_its_limit_is_refused(write, monkeypatch):
    monkeypatch.setattr("rlhf_cli.data.json_values.CHUNK", 10)
    monkeypatch.setattr("rlhf_cli.data.json_values.LIMIT", 100)
    with pytest.raises(DataError, match=r"a\.json:2: "):
        values(write("a.json", f'[{GOOD},\n{{"prompt": "{"x" * 1000}"}}]'))
    monkeypatch.setattr("rlhf_cli.data.json_files.DOCUMENT", 100)
    with pytest.raises(DataError, match=r"a\.json is one value of more than"):
        values(write("a.json", f'{{"prompt": "{"x" * 1000}"}}'))


TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


def test_a_file_of_one_conversation_is_one_row(write):
    assert values(write("a.json", json.dumps({"messages": TURNS}))) == [{"messages": TURNS}]
    chat = {"chat": TURNS}
    assert values(write("b.json", json.dumps(chat)), columns={"messages": "chat"}) == [chat]


def test_split_selects_one_of_several_lists(write):
    path = write("a.json", json.dumps({"train": ROWS[:1], "test": ROWS[1:]}))
    with pytest.raises(DataError, match="holds lists of rows named train, test; set split"):
        values(path)
    assert values(path, split="test") == ROWS[1:]
    with pytest.raises(DataError, match="holds lists of rows named train, test; set split"):
        values(write("a.json", json.dumps({"train": [], "test": ROWS})))
    for text in (json.dumps(ROWS), f"{GOOD}\n{GOOD}\n", GOOD):
        with pytest.raises(DataError, match="the file has no splits"):
            values(write("b.json", text), split="test")


@pytest.mark.parametrize(
    "document",
    [
        {"prompt": ["a", "b"], "response": ["c", "d"]},
        {"prompt": {"0": "a", "1": "b"}, "response": {"0": "c", "1": "d"}},
        {"prompt": {"x": "a", "y": "b"}, "response": {"x": "c", "y": "d"}},
        {"prompt": {"0": "a"}},
        {"0": {"prompt": "a", "response": "c"}},
    ],
)
def test_a_table_stored_by_columns_is_refused_with_the_remedy(write, document):
    with pytest.raises(DataError, match=r"a\.json .*not rows; write rows instead: df\.to_json"):
        values(write("a.json", json.dumps(document)))


def test_a_number_among_the_rows_of_an_object_is_a_bad_row(write):
    found = values(write("a.json", json.dumps({"data": [ROWS[0], 7, ROWS[1]]})))
    assert found[::2] == ROWS
    assert found[1].detail == "found int, expected {key: value}"


def test_a_leaf_that_is_not_a_text_is_a_bad_row(write):
    found = values(write("a.json", '{"a": {"x": ["one", 2]}, "b": {"y": "three"}}'))
    assert [row for row in found if isinstance(row, dict)] == [
        {"prompt": "one"},
        {"prompt": "three"},
    ]
    assert found[1].reason == "not a string"


def test_an_invalid_document_is_refused_by_name(write):
    for text, expected in (
        (f'{{"data": [{GOOD}], "data": []}}', "a key written twice: 'data'"),
        (f"{{\n{GOOD}", r":2: not valid JSON at column 1"),
        ('{"a":\n' + "[" * 100_000, "nested too deeply"),
    ):
        with pytest.raises(DataError, match=rf"a\.json.*?{expected}"):
            values(write("a.json", text))

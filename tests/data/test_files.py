"""Every kind of file gives the same rows with their lines; unreadable files are refused."""

import gzip
import json
import os

import pytest

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError, RowError
from rlhf_cli.data.sources import source_hash
from tests.support.data_sources import ROWS, read, values


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.ndjson", "A.JSONL"]
)
def test_json_files_of_every_kind_give_the_same_rows(write, name):
    content = json.dumps(ROWS) if ".json" in name and "l" not in name else ROWS
    assert values(write(name, content)) == ROWS


def test_parquet_gives_rows_without_lines(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert [row for _, row in found] == ROWS
    assert str(found[1][0]).endswith("a.parquet row 2")


def test_text_files_give_one_text_per_line(write):
    assert values(write("a.txt", "one\n\n two \r\n")) == [{"text": "one"}, {"text": " two "}]


def test_a_byte_order_mark_and_windows_line_ends_are_removed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffprompt,response\r\nq,a\r\n".encode())
    assert values(path) == [{"prompt": "q", "response": "a"}]


def test_limit_takes_the_first_rows(write):
    path = write("a.jsonl", [{"prompt": str(i)} for i in range(9)])
    assert values(path, limit=2) == [{"prompt": "0"}, {"prompt": "1"}]


def test_escapes_become_characters_only_with_unescape(write):
    path = write("a.tsv", "q\\nr\ta\\\\n\\t.\n")
    columns = {"prompt": "0", "response": "1"}
    assert values(path, columns=columns) == [{"0": "q\\nr", "1": "a\\\\n\\t."}]
    assert values(path, columns=columns, unescape=True) == [{"0": "q\nr", "1": "a\\n\t."}]


def test_escapes_inside_lists_and_objects_become_characters(write):
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
    ("path", "expected"),
    [
        ("nothing/here.jsonl", "does not exist"),
        ("/no/such/folder", "does not exist"),
        ("./data", "does not exist"),
        ("no-*.jsonl", "does not exist"),
    ],
)
def test_a_missing_file_is_not_taken_for_a_hub_id(path, expected):
    with pytest.raises(DataError, match=expected):
        values(path)


def test_an_unknown_kind_of_file_names_the_known_ones(write):
    with pytest.raises(DataError, match=r"a\.xml: unknown kind of file; known: \.json"):
        values(write("a.xml", "<a/>"))


def test_the_hash_of_a_file_covers_its_bytes(write, tmp_path):
    first = source_hash(Source(path=str(write("a.jsonl", ROWS))))
    assert first == source_hash(Source(path=str(write("a.jsonl", ROWS))))
    assert first != source_hash(Source(path=str(write("a.jsonl", ROWS[:1]))))
    same_size = ROWS[::-1]
    assert first != source_hash(Source(path=str(write("a.jsonl", same_size))))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write("{}")
    assert len(source_hash(Source(path=str(tmp_path / "b.jsonl.gz")))) == 64


def parquet(path, rows):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_a_gzipped_parquet_is_read(tmp_path):
    whole = parquet(tmp_path / "a.parquet", ROWS).read_bytes()
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(whole))
    assert values(tmp_path / "b.parquet.gz") == ROWS


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"{}", lambda b: b[:8]])
def test_a_damaged_parquet_file_is_refused_by_name(tmp_path, damage):
    path = parquet(tmp_path / "a.parquet", ROWS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DataError, match=r"a\.parquet cannot be read as parquet \(.*\); copy it again"
    ):
        values(path)


def test_an_invalid_or_too_long_parquet_cell_is_one_bad_row(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    binary = pa.array([b"good", b"\xff", b"x" * 5000, b"last"])
    text = pa.StringArray.from_buffers(4, binary.buffers()[1], binary.buffers()[2])
    parquet.write_table(pa.table({"prompt": text}), tmp_path / "a.parquet")
    monkeypatch.setattr("rlhf_cli.data.files.LIMIT", 1000)
    found = read(tmp_path / "a.parquet")
    assert [row.reason if isinstance(row, RowError) else row["prompt"] for _, row in found] == [
        "good",
        "not UTF-8 text",
        "longer than the limit",
        "last",
    ]
    assert str(found[2][0]).endswith("a.parquet row 3")


def test_two_parquet_columns_with_the_same_name_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: more than one column is named prompt"):
        values(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", "", r"a\.jsonl is empty \(0 bytes\)"),
        ("a.parquet", "", r"a\.parquet is empty \(0 bytes\)"),
        ("a.jsonl", "\n \n", r"a\.jsonl holds no rows"),
        ("a.json", "[]", r"a\.json holds no rows"),
        ("a.csv", "prompt,response\n", r"a\.csv holds no rows"),
    ],
)
def test_a_source_without_rows_is_refused(write, name, content, expected):
    with pytest.raises(DataError, match=expected):
        values(write(name, content))


def test_a_key_of_a_source_without_effect_is_refused(write):
    path = write("a.jsonl", ROWS)
    for key in ("split", "config", "data_dir", "revision", "delimiter"):
        with pytest.raises(DataError, match=rf"{key}=; of source .*a\.jsonl: it has no effect on"):
            values(path, **{key: ";"})


def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl is not a regular file"):
        values(tmp_path / "a.jsonl")


def test_a_file_that_cannot_be_opened_is_refused_in_one_line(write, monkeypatch):
    path = write("a.jsonl", ROWS)

    def refuse(self, *args, **named):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", refuse)
    for act in (values, lambda p: source_hash(Source(path=str(p)))):
        with pytest.raises(DataError, match=r"a\.jsonl cannot be read: Permission denied"):
            act(path)


def test_text_that_parquet_holds_as_bytes_is_text_and_other_bytes_stay(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    columns = {"prompt": [b"caf\xc3\xa9", None], "image": [b"\x89PNG", b"\xff"], "n": [1, 2]}
    parquet.write_table(pa.table(columns), path)
    assert [row for _, row in read(path)] == [
        {"prompt": "caf\u00e9", "image": b"\x89PNG", "n": 1},
        {"prompt": None, "image": b"\xff", "n": 2},
    ]

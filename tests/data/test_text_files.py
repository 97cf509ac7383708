"""Bytes to lines: compression, encoding and length; errors name the line."""

import gzip

import pytest

from rlhf_cli.data.records import DataError
from tests.support.data_sources import read

LINES = "".join(f'{{"prompt": "question {i}"}}\n' for i in range(2000)).encode()
PACKED = gzip.compress(LINES, mtime=0)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (
            "a.jsonl.gz",
            PACKED[: len(PACKED) // 2],
            r"the gzip file is cut short after line \d+; copy",
        ),
        (
            "a.jsonl.gz",
            flipped(PACKED, len(PACKED) // 2),
            r"the gzip file is damaged after line \d+ \(.*copy it",
        ),
        (
            "a.jsonl.gz",
            flipped(PACKED, len(PACKED) - 6),
            r"the gzip file is damaged after line 2000 \(CRC check",
        ),
        (
            "a.json.gz",
            gzip.compress(b"[1, 2]", mtime=0)[:-9],
            "the gzip file is cut short; copy it again",
        ),
        ("a.parquet.gz", PACKED[:99], "the gzip file is cut short; copy it again"),
        ("a.jsonl.gz", LINES, r"is no gzip file; take \.gz off its name"),
        ("a.jsonl", PACKED, "is a gzip file under another name"),
        ("a.csv", b"PAR1xxxx", "is a parquet file under another name"),
        ("a.json", b"PK\x03\x04xx", "is a zip or xlsx file under another name"),
        ("a.jsonl", LINES.decode().encode("utf-16"), "is UTF-16 text; convert it: iconv -f utf-16"),
        ("a.csv", LINES.decode().encode("utf-16-be"), "is UTF-16 text; convert it"),
        ("a.txt", LINES.decode().encode("utf-16-le"), "is UTF-16 text; convert it"),
    ],
)
def test_a_file_that_is_damaged_or_another_kind_is_refused_by_name(tmp_path, name, data, expected):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}:? {expected}"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_line_that_is_not_utf8_is_one_bad_row_with_the_remedy(tmp_path, name):
    (tmp_path / name).write_bytes(b'{"prompt": "a"}\n{"prompt": "\xe9"}\n{"prompt": "b"}\n')
    found = read(tmp_path / name)
    assert [isinstance(row, dict) for _, row in found] == [True, False, True]
    assert found[1][0].line == 2
    assert found[1][1].reason == "not UTF-8 text"
    assert "byte 0xe9; convert the file: iconv -f latin-1 -t utf-8" in found[1][1].detail


def test_a_document_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    for text in ('[{"prompt": "a"},\n{"prompt": "é"}]', '{"prompt":\n"é"}'):
        (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=r"a\.json:2: not UTF-8 text: byte 0xe9"):
            read(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz"])
def test_a_line_above_the_limit_is_one_bad_row(write, name, monkeypatch):
    monkeypatch.setattr("rlhf_cli.data.text_files.LIMIT", 100)
    text = '{"prompt": "a"}\n' + '{"prompt": "' + "x" * 1000 + '"}\n{"prompt": "b"}\n'
    found = read(write(name, text))
    assert [isinstance(row, dict) for _, row in found] == [True, False, True]
    assert found[1][1].reason == "longer than the limit"
    assert [origin.line for origin, _ in found] == [1, 2, 3]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_with_lf_crlf_or_cr(write, end):
    found = read(write("a.txt", f"one{end}{end}two\u2028\u0085 three{end}"))
    assert [(o.line, row["text"]) for o, row in found] == [(1, "one"), (3, "two\u2028\u0085 three")]

"""Damaged files of every format are read right, give bad rows, or are refused; never misread.

Valid files are damaged at random (seeded). What the reader accepts is compared with readers written
here by other means, in both directions: no row is taken that they do not take, none is dropped.
"""

import csv
import gzip
import io
import json
import random
import re
import zlib
from decimal import Decimal
from itertools import permutations

import pytest

from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats.table import convert
from rlhf_cli.data.records import DataError, Origin, RowError
from rlhf_cli.data.sources import rows

SPECIAL = '{}[]",:;\n\r\t|\\ 0\x00\ufeff\u2028\u0085'
TEXTS = (
    "Why is the sky blue?",
    'He said "no", twice',
    "one\ntwo",
    "é à ü 你好 🙂",
    "a;b|c\td",
    "x, y and z",
    "back\\slash \\n",
    "1,5",
    "Because.",
)
INSERTS = (
    b'"k": NaN, ', b'"prompt": "again", ', b"9" * 5000, b"[" * 4000, b"\\ud83d", b"\xff", b"\x00",
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b'{"prompt": "new", "response": "row"}\n', b"new,row\n",
    b"NaN, ", b"1e999, ", b"true, ", b"null, ",
    b'"text"\n', b"null\n", b"[1]\n", b"\n\n", b'""', b'"', b"\r", b"-Infinity",
)  # fmt: skip


def valid_rows(chance):
    size = chance.randrange(2, 9)
    return [
        {"prompt": f"{i} {chance.choice(TEXTS)}", "response": f"{chance.choice(TEXTS)} {i}"}
        for i in range(size)
    ]


def as_table(found, delimiter, end="\n"):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerow(["prompt", "response"])
    writer.writerows([row["prompt"], row["response"]] for row in found)
    return file.getvalue()


def as_parquet(found):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(found), file, write_page_checksum=True)
    return file.getvalue()


DELIMITER = {".csv": ",", ".semicolon.csv": ";"}


def lines_of(found, *, ascii_only=False):
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in found)


def ranked(found, chance):
    """Return rows of three scored responses."""
    return [
        {
            "prompt": row["prompt"],
            "responses": [row["response"], f"{row['response']} more", "Dunno."],
            "scores": [chance.choice([0, 1, 2.5, -3, 7]) for _ in range(3)],
        }
        for row in found
    ]


WRITERS = {
    ".jsonl": lambda found, chance: lines_of(found, ascii_only=chance.random() < 0.5),
    ".ranked.jsonl": lambda found, chance: lines_of(ranked(found, chance)),
    ".json": lambda found, chance: json.dumps(
        found, indent=chance.choice([None, 1]), ensure_ascii=chance.random() < 0.5
    ),
    ".lines.json": lambda found, chance: lines_of(found),
    ".object.json": lambda found, chance: json.dumps({"version": 1, "data": found}, indent=1),
    ".csv": lambda found, chance: as_table(found, ",", chance.choice(["\n", "\r\n", "\r"])),
    ".semicolon.csv": lambda found, chance: as_table(found, ";"),
    ".tsv": lambda found, chance: "prompt\tresponse\n" + "".join(
        re.sub(r"[\t\n]", " ", row["prompt"]) + "\t" + re.sub(r"[\t\n]", " ", row["response"]) + "\n"
        for row in found
    ),
    ".txt": lambda found, chance: "".join(row["prompt"] + "\n" for row in found),
}  # fmt: skip


def damaged(data: bytes, chance) -> bytes:
    """Return the bytes with one to three faults: cut, flipped, inserted, moved, doubled."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        data = chance.choice(FAULTS)(data, chance) or data
    return data


def _at(data, chance):
    return chance.randrange(len(data) + 1)


def _flip(data, chance):
    at = chance.randrange(len(data)) if data else 0
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def _cut_out(data, chance):
    start = _at(data, chance)
    return data[:start] + data[start + chance.choice([1, 1, 3, 30]) :]


def _insert(data, chance):
    at = _at(data, chance)
    return data[:at] + chance.choice([chance.choice(SPECIAL).encode(), *INSERTS]) + data[at:]


def _move(data, chance):
    """Move a mark (bracket, quote, comma, line end) to another place."""
    marks = [i for i, byte in enumerate(data) if byte in b'{}[]",:;\n\t']
    if not marks:
        return data
    at = chance.choice(marks)
    rest = data[:at] + data[at + 1 :]
    to = chance.choice([at + chance.randrange(-3, 4), chance.randrange(len(rest) + 1)])
    to = min(max(to, 0), len(rest))
    return rest[:to] + data[at : at + 1] + rest[to:]


def _recode(data, chance):
    name = chance.choice(["utf-16", "utf-16-le", "latin-1"])
    return data.decode("utf-8", "replace").encode(name, "replace")


FAULTS = (
    _flip, _flip, _cut_out, _cut_out, _insert, _insert, _insert, _move, _move, _move,
    lambda data, chance: data[: _at(data, chance)],
    lambda data, chance: data[_at(data, chance) :],
    lambda data, chance: data + data,
    lambda data, chance: data + b"\n" + data[: _at(data, chance)],
    lambda data, chance: data.replace(b"\n", chance.choice([b"\r\n", b"\r", b"\n\n"])),
    lambda data, chance: data.replace(b"response", b"prompt", chance.choice([1, 1, 2])),
    lambda data, chance: data.replace(b'"', b"", 1),
    lambda data, chance: b"\xef\xbb\xbf" + data,
    _recode,
)  # fmt: skip


class Refused(Exception):
    """The independent reader refuses this row or this file."""


def strict_json(text: str):
    """Return a value by json.loads; refuse repeated keys, invalid text and too many digits."""

    def unique(pairs):
        if len({key for key, _ in pairs}) != len(pairs):
            raise Refused
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique)
        repr(value).encode()
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused from error
    return value


def text_lines(data: bytes) -> list[tuple[int, bytes]]:
    found = re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf"))
    return list(enumerate(found, start=1))


def objects_only(values):
    """Return the rows of the kind of the first: objects or texts."""
    kinds = [type(value) for _, value in values if isinstance(value, (dict, str))]
    kept = [(place, value) for place, value in values if kinds and type(value) is kinds[0]]
    return [(place, {"text": v} if isinstance(v, str) else v) for place, v in kept]


def expected_lines(data: bytes):
    values = []
    for line, raw in text_lines(data):
        try:
            values.append((line, strict_json(raw.decode())))
        except (Refused, UnicodeDecodeError):
            continue
    return objects_only(values)


def expected_document(data: bytes):
    """Return rows of a .json: an array or an object of one list by json.loads, else its lines."""
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        return expected_lines(data)
    try:
        whole = strict_json(text)
    except Refused:
        return array_elements(text) if text.lstrip(" \t\r\n")[:1] == "[" else expected_lines(data)
    if isinstance(whole, dict):
        lists = [v for v in whole.values() if isinstance(v, list) and v]
        whole = lists[0] if len(lists) == 1 and "prompt" not in whole else [whole]
    values = whole if isinstance(whole, list) else [whole]
    return [row for _, row in objects_only(list(enumerate(values)))]


def array_elements(text: str):
    """Return the valid rows of an array whose syntax is valid."""
    try:
        pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs, parse_int=str)
    except (ValueError, RecursionError):
        return []
    kept = []
    for value in pairs:
        try:
            if isinstance(value, list) and all(isinstance(p, tuple) for p in value):
                written = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value]
                kept.append(strict_json("{" + ", ".join(written) + "}"))
        except (Refused, TypeError):
            continue
    return kept


CELL = {
    delimiter: re.compile(
        rf'(?:"((?:[^"]|"")*)"|((?!")[^{re.escape(delimiter)}\r\n]*))({re.escape(delimiter)}|\r\n|\r|\n|\Z)'
    )
    for delimiter in ",;\t|"
}


def expected_table(data: bytes, delimiter: str):
    """Return rows by the grammar of RFC 4180 as one regular expression; refuse other files."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    records, record, at, line, start = [], [], 0, 1, 1
    while at < len(text) or record:
        match = CELL[delimiter].match(text, at)
        if match is None:
            raise Refused
        quoted, plain, end = match.groups()
        record.append(plain if quoted is None else quoted.replace('""', '"'))
        line += len(re.findall(r"\r\n|\r|\n", match[0]))
        at = match.end()
        if end != delimiter:
            blank = len(record) == 1 and record[0] == "" and quoted is None
            records += [] if blank else [(start, record)]
            record, start = [], line
    return with_header(records)


def with_header(records):
    if not records:
        return []
    (_, header), *rest = records
    if len(set(header) - {""}) != len([name for name in header if name]):
        raise Refused
    return [
        (line, dict(zip(header, fields, strict=True)))
        for line, fields in rest
        if len(fields) == len(header)
        and is_text("".join(fields))
        and [fields[0].lstrip("\ufeff"), *fields[1:]] != header
    ]


def is_text(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)


def expected_tabs(data: bytes):
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    found = enumerate(re.split(r"\r\n|\r|\n", text), start=1)
    return with_header([(line, row.split("\t")) for line, row in found if row])


def expected_text(data: bytes):
    kept = []
    for line, raw in text_lines(data):
        try:
            if raw.decode().strip():
                kept.append((line, {"text": raw.decode()}))
        except UnicodeDecodeError:
            continue
    return kept


def read(path, **source):
    """Return (accepted rows with their lines, number of bad rows)."""
    found = list(rows(Source(path=str(path), **source)))
    for origin, _ in found:
        assert str(path) in str(origin)
        assert origin.line or not str(path).removesuffix(".gz").endswith((".jsonl", ".csv", ".txt"))
    good = [(o.line, row) for o, row in found if not isinstance(row, RowError)]
    return good, len(found) - len(good)


def check_records(path, accepted):
    """Assert that the form gives the content of the row or refuses it."""
    for line, row in accepted:
        role = "comparisons" if "responses" in row else "demonstrations"
        try:
            (record,), _ = convert(row, Origin(str(path), 1, line), Source(path=str(path)), role)
        except RowError:
            continue
        if role == "comparisons":
            assert list(record.responses) == [text.strip() for text in row["responses"]]
            check_order(record, [Decimal(str(score)) for score in row["scores"]])
        elif record.messages[0].role == "text":
            assert record.messages[0].content == row["text"]
        elif {"prompt", "response"} <= row.keys():
            contents = [message.content for message in record.messages]
            assert contents == [row["prompt"].strip(), row["response"].strip()]


def check_order(record, scores):
    """Assert that every pair of finite scores is a preference for the higher or a tie."""
    assert all(score.is_finite() for score in scores)
    pairs = list(permutations(range(len(scores)), 2))
    assert set(record.better) == {(i, j) for i, j in pairs if scores[i] > scores[j]}
    assert {frozenset(pair) for pair in record.ties} == {
        frozenset((i, j)) for i, j in pairs if scores[i] == scores[j]
    }


def strip_lines(pairs):
    return [row for _, row in pairs]


def same(one, two) -> bool:
    return repr(one) == repr(two)  # NaN equals NaN


def compare(kind, data, accepted, *, delimiter_given):
    """Compare accepted rows with those of the independent reader of this kind of file."""
    if kind == ".txt":
        assert same(accepted, expected_text(data))
    elif kind.endswith(".jsonl"):
        assert same(accepted, expected_lines(data))
    elif kind.endswith(".json"):
        expected = expected_document(data)
        expected = strip_lines(expected) if expected and type(expected[0]) is tuple else expected
        assert same(strip_lines(accepted), expected)
    elif kind == ".tsv":
        expected = expected_tabs(data)
        assert all(pair in expected for pair in accepted)
        dropped = [row for line, row in expected if (line, row) not in accepted]
        assert all(any(cell.startswith('"') for cell in row.values()) for row in dropped)
    else:
        try:
            expected = expected_table(data, DELIMITER[kind])
        except Refused:
            expected = []
        assert same(
            accepted, expected if delimiter_given else [row for row in expected if row in accepted]
        )


def packed(kind, found) -> bytes:
    data = as_parquet(found) if ".parquet" in kind else lines_of(found).encode()
    return gzip.compress(data, mtime=0) if kind.endswith(".gz") else data


def unpacked(data: bytes) -> bytes:
    """Return all members of a gzip file, by zlib alone."""
    content = b""
    while data.strip(b"\0"):
        member = zlib.decompressobj(wbits=31)
        content += member.decompress(data)
        if not member.eof:
            raise Refused
        data = member.unused_data
    return content


BYTES = (
    _flip, _flip, _cut_out,
    lambda data, chance: data[: _at(data, chance)],
    lambda data, chance: data[:4] + data[_at(data, chance) :],
    lambda data, chance: data + chance.randbytes(8),
    lambda data, chance: data + data,
    lambda data, chance: data[: (at := _at(data, chance))] + chance.randbytes(3) + data[at:],
)  # fmt: skip


PACKED = (".jsonl.gz", ".parquet", ".parquet.gz")  # no text, and with checksums
FEW, MANY = 30, 3000


def try_damaged(tmp_path, kind, seed):
    """Damage a file of this kind, read it and compare; return whether the file was refused."""
    chance = random.Random(f"{kind} {seed}")
    found = valid_rows(chance)
    if kind in PACKED:
        data = chance.choice(BYTES)(packed(kind, found), chance)
    else:
        data = damaged(WRITERS[kind](found, chance).encode(), chance)
    path = tmp_path / f"{seed}{kind}"
    path.write_bytes(data)
    delimiter_given = kind in DELIMITER and seed % 2 == 0
    try:
        accepted, _ = read(path, **({"delimiter": DELIMITER[kind]} if delimiter_given else {}))
    except DataError as error:
        assert path.name in str(error)
        assert "\n" not in str(error)
        return True
    if kind in PACKED:
        compare_packed(kind, data, accepted, found)
        return False
    check_records(path, accepted)
    of_known_columns = [
        (line, row) for line, row in accepted if {"prompt", "response"} <= row.keys()
    ]
    compare(
        kind,
        data,
        accepted if delimiter_given or kind not in DELIMITER else of_known_columns,
        delimiter_given=delimiter_given,
    )
    return False


def compare_packed(kind, data, accepted, found):
    """Compare accepted rows with those of the file unpacked by zlib, or with those written."""
    if kind == ".jsonl.gz":
        try:
            assert same(accepted, expected_lines(unpacked(data)))
        except zlib.error:  # a reserved bit of its head, which the content does not depend on
            assert strip_lines(accepted) == found
    else:
        known = [row for _, row in accepted if row.keys() == {"prompt", "response"}]
        assert not known or known == found


@pytest.mark.parametrize("kind", [*WRITERS, *PACKED])
def test_a_damaged_file_is_never_misread(tmp_path, kind):
    refused = [try_damaged(tmp_path, kind, seed) for seed in range(FEW)]
    assert any(refused)
    assert not all(refused)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*WRITERS, *PACKED])
def test_many_damaged_files_are_never_misread(tmp_path, kind):
    for seed in range(FEW, MANY):
        try_damaged(tmp_path, kind, seed)
